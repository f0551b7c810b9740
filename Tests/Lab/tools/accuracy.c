/*
 * How well somebody knew which pages had been idle for some time, against a guest that
 * knows when it touched them.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

#define PAGE_BYTES 4096
#define FRAMES_MAX (1 << 20) /* 4 GiB of guest RAM */
#define CLASS_OUT 15

/* What the guest's command_truth() sends of each page. */
struct truth {
    uint32_t frame, idle_ms;
};

static unsigned char *read_file(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = NULL;
    size_t capacity = 0;

    *length = 0;
    while (file && !feof(file)) {
        if (*length == capacity) {
            capacity = capacity ? capacity * 2 : 1 << 16;
            bytes = realloc(bytes, capacity);
        }
        if (!bytes) {
            die("out of memory");
        }
        *length += fread(bytes + *length, 1, capacity - *length, file);
    }
    if (!file || ferror(file)) {
        die("cannot read %s", path);
    }
    fclose(file);
    return bytes;
}

static uint64_t number(const unsigned char *bytes, size_t size)
{
    uint64_t value = 0;

    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)bytes[i] << (8 * i);
    }
    return value;
}

/* Neighbours that are all told to be idle are printed as one range: FIRST COUNT. */
static void tell(uint64_t page, uint64_t count, int is_idle)
{
    static uint64_t first, pending;

    if (is_idle && pending && first + pending == page) {
        pending += count;
        return;
    }
    if (pending) {
        printf("%llu %llu\n", (unsigned long long)first, (unsigned long long)pending);
    }
    first = page;
    pending = is_idle ? count : 0;
}

/* The time between two looks at that age: between the classes on both sides of it, in ns. */
static double interval_at(const uint64_t *idle, uint64_t classes, double age)
{
    for (uint64_t i = 2; i <= classes && i < CLASS_OUT; i++) {
        if ((double)idle[i] >= age) {
            return (double)(idle[i] - idle[i - 1]);
        }
    }
    return 0;
}

/* hotness FILE SECONDS: the pages that a hotness image calls idle for so long; on standard
 * error, how many seconds its looks were apart then. Written from the format's description,
 * not from the code that writes it. */
int command_hotness(int argc, char **argv)
{
    double least;
    uint64_t pages, page = 0, classes;
    unsigned char *image, *at, *end;
    uint64_t idle[16] = {0};
    size_t length;

    if (argc != 3) {
        die("hotness wants FILE SECONDS");
    }
    image = read_file(argv[1], &length);
    least = atof(argv[2]) * 1e9;
    if (length < 36 || memcmp(image, "frosthot", 8) || number(image + 8, 2) != 1) {
        die("%s is no hotness of version 1", argv[1]);
    }
    classes = number(image + 10, 2);
    pages = number(image + 16, 8) / PAGE_BYTES;
    for (uint64_t i = 1; i <= classes && i < CLASS_OUT; i++) {
        idle[i] = number(image + 24 + 8 * (i - 1), 8);
    }
    fprintf(stderr, "%.3f\n", interval_at(idle, classes, least) / 1e9);
    idle[CLASS_OUT] = UINT64_MAX;
    at = image + 24 + 8 * (classes + 1);
    end = image + length - 4;
    while (at < end) {
        uint64_t head = 0, count;
        int shift = 0;

        do {
            head |= (uint64_t)(*at & 0x7f) << shift;
            shift += 7;
        } while (*at++ & 0x80 && at < end);
        if (!(head & 1)) {
            count = (head >> 5) + 1;
            tell(page, count, (double)idle[head >> 1 & 15] >= least);
            page += count;
            continue;
        }
        count = (head >> 1) + 1;
        for (uint64_t i = 0; i < count && at + i / 2 < end; i++) {
            tell(page + i, 1, (double)idle[at[i / 2] >> (i % 2 * 4) & 15] >= least);
        }
        page += count;
        at += (count + 1) / 2;
    }
    tell(page, 0, 0);
    if (page != pages) {
        die("%s is about %llu pages of %llu", argv[1], (unsigned long long)page,
            (unsigned long long)pages);
    }
    return 0;
}

static uint64_t read_number(const char *folder, const char *entry, const char *name)
{
    char path[512];
    unsigned long long value = 0;
    FILE *file;

    snprintf(path, sizeof path, "%s/%s/%s", folder, entry, name);
    file = fopen(path, "r");
    if (!file || fscanf(file, "%llu", &value) != 1) {
        die("cannot read %s", path);
    }
    fclose(file);
    return value;
}

/* damon REGIONS START INTERVALS: the pages that DAMON calls idle for so many aggregation
 * intervals. REGIONS is a scheme's folder of tried regions, START where page 0 is. */
int command_damon(int argc, char **argv)
{
    struct dirent **entries;
    uint64_t start, intervals;
    int count;

    if (argc != 4) {
        die("damon wants REGIONS START INTERVALS");
    }
    start = strtoull(argv[2], NULL, 0);
    intervals = strtoull(argv[3], NULL, 0);
    count = scandir(argv[1], &entries, NULL, versionsort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        uint64_t from, to;

        if (name[0] < '0' || name[0] > '9') {
            continue;
        }
        from = read_number(argv[1], name, "start");
        to = read_number(argv[1], name, "end");
        if (from < start || to <= from) {
            continue;
        }
        tell((from - start) / PAGE_BYTES, (to - from) / PAGE_BYTES,
             read_number(argv[1], name, "nr_accesses") == 0 &&
                 read_number(argv[1], name, "age") >= intervals);
    }
    tell(0, 0, 0);
    return 0;
}

/* What is known of a unit, and said of it. */
struct unit {
    uint32_t known, told; /* how many of its pages */
    uint32_t idle_ms;     /* of the one that was touched last */
};

/* accuracy TRUTH SECONDS MARGIN [PAGES]: judges the ranges on standard input, by units of so
 * many pages, of which each is idle that has no page in use. Units whose idle time is within
 * MARGIN of SECONDS, and those with pages of which the guest says nothing, are left out. */
int command_accuracy(int argc, char **argv)
{
    static unsigned char told[FRAMES_MAX];
    static struct unit units[FRAMES_MAX];
    unsigned long long first, count, judged = 0, ambiguous = 0, idle = 0, said = 0, right = 0;
    double seconds, margin;
    struct truth *truth;
    uint32_t per_unit;
    size_t length;

    if (argc != 4 && argc != 5) {
        die("accuracy wants TRUTH SECONDS MARGIN [PAGES]");
    }
    truth = (struct truth *)read_file(argv[1], &length);
    seconds = atof(argv[2]);
    margin = atof(argv[3]);
    per_unit = argc == 5 ? (uint32_t)atoi(argv[4]) : 1;
    if (!per_unit) {
        die("accuracy: a unit has one page at least");
    }
    while (scanf("%llu %llu", &first, &count) == 2) {
        if (first + count > FRAMES_MAX) {
            die("accuracy: page %llu is beyond all memory", first + count);
        }
        memset(told + first, 1, count);
    }
    for (size_t i = 0; i < length / sizeof *truth; i++) {
        struct unit *unit;

        if (truth[i].frame >= FRAMES_MAX) {
            die("accuracy: frame %u is beyond all memory", truth[i].frame);
        }
        unit = &units[truth[i].frame / per_unit];
        if (!unit->known++ || truth[i].idle_ms < unit->idle_ms) {
            unit->idle_ms = truth[i].idle_ms;
        }
        unit->told += told[truth[i].frame];
    }
    for (size_t i = 0; i < FRAMES_MAX; i++) {
        double age = units[i].idle_ms / 1e3;
        int is_idle = age >= seconds, is_told = units[i].told == per_unit;

        if (units[i].known != per_unit) {
            continue;
        }
        judged++;
        if (age > seconds - margin && age < seconds + margin) {
            ambiguous++;
            continue;
        }
        idle += (unsigned)is_idle;
        said += (unsigned)is_told;
        right += (unsigned)(is_idle && is_told);
    }
    printf("units %llu ambiguous %llu idle %llu told %llu right %llu precision %llu recall %llu\n",
           judged, ambiguous, idle, said, right, said ? right * 10000 / said : 10000,
           idle ? right * 10000 / idle : 10000);
    return 0;
}
