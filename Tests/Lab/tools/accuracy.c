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

#define FRAMES_MAX (1 << 20) /* 4 GiB of guest RAM */

/* What the guest's command_truth() sends of each page. */
struct truth {
    uint32_t frame, idle_ms;
};

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
        tell_idle((from - start) / PAGE_BYTES, (to - from) / PAGE_BYTES,
                  read_number(argv[1], name, "nr_accesses") == 0 &&
                      read_number(argv[1], name, "age") >= intervals);
    }
    tell_idle(0, 0, 0);
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
