/*
 * Hotness images: what a pager knows about the use of each page. Written from the format's
 * description, not from the code that writes it.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lab.h"

unsigned char *read_file(const char *path, size_t *length)
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

static uint64_t varint(unsigned char **at, const unsigned char *end)
{
    uint64_t value = 0;

    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        unsigned char byte = *(*at)++;

        value |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            break;
        }
    }
    return value;
}

void hotness_read(const char *path, struct hotness *hotness)
{
    unsigned char *image, *at, *end;
    uint64_t page = 0;
    size_t length;

    image = read_file(path, &length);
    if (length < 36 || memcmp(image, "frosthot", 8) || number(image + 8, 2) != 1) {
        die("%s is no hotness of version 1", path);
    }
    hotness->classes = number(image + 10, 2);
    hotness->pages = number(image + 16, 8) / PAGE_BYTES;
    at = image + 24 + 8 * (hotness->classes + 1);
    end = image + length - 4;
    if (hotness->classes >= CLASS_OUT || at > end) {
        die("%s is too short", path);
    }
    memset(hotness->idle, 0, sizeof hotness->idle);
    for (uint64_t i = 1; i <= hotness->classes; i++) {
        hotness->idle[i] = number(image + 24 + 8 * (i - 1), 8);
    }
    hotness->idle[CLASS_OUT] = UINT64_MAX;
    hotness->class_of = malloc(hotness->pages);
    if (!hotness->class_of) {
        die("out of memory");
    }
    while (at < end) {
        uint64_t head = varint(&at, end), count = (head & 1 ? head >> 1 : head >> 5) + 1;

        if (count > hotness->pages - page) {
            break;
        }
        if (!(head & 1)) {
            memset(hotness->class_of + page, head >> 1 & 15, count);
            page += count;
            continue;
        }
        for (uint64_t i = 0; i < count && at + i / 2 < end; i++) {
            hotness->class_of[page + i] = at[i / 2] >> (i % 2 * 4) & 15;
        }
        page += count;
        at += (count + 1) / 2;
    }
    if (page != hotness->pages || at != end) {
        die("%s tells of %llu pages, of %llu", path, (unsigned long long)page,
            (unsigned long long)hotness->pages);
    }
    free(image);
}

/* The time between two looks at that age: between the classes on both sides of it, in ns. */
static double interval_at(const struct hotness *hotness, double age)
{
    for (uint64_t i = 2; i <= hotness->classes; i++) {
        if ((double)hotness->idle[i] >= age) {
            return (double)(hotness->idle[i] - hotness->idle[i - 1]);
        }
    }
    return 0;
}

void tell_idle(uint64_t page, uint64_t count, int is_idle)
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

/* hotness FILE SECONDS: the pages that a hotness image calls idle for so long; on standard
 * error, how many seconds its looks were apart then. */
int command_hotness(int argc, char **argv)
{
    struct hotness hotness;
    double least;

    if (argc != 3) {
        die("hotness wants FILE SECONDS");
    }
    hotness_read(argv[1], &hotness);
    least = atof(argv[2]) * 1e9;
    fprintf(stderr, "%.3f\n", interval_at(&hotness, least) / 1e9);
    for (uint64_t page = 0; page < hotness.pages; page++) {
        tell_idle(page, 1, (double)hotness.idle[hotness.class_of[page]] >= least);
    }
    tell_idle(0, 0, 0);
    return 0;
}
