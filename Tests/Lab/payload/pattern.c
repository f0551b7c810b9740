/*
 * Touches in known patterns: which pages of the filled memory were touched when is known
 * exactly, for comparison with what somebody else found out about it.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "payload.h"

#define TICK_SECONDS 0.01
#define PAGEMAP_PRESENT (UINT64_C(1) << 63)
#define PAGEMAP_FRAME ((UINT64_C(1) << 55) - 1)
#define PAGES_AT_ONCE 512

/* One page's line in what command_truth() sends: see Tests/Lab/tools/accuracy.c. */
struct truth {
    uint32_t frame;    /* guest-physical page */
    uint32_t idle_ms;  /* when the pattern ended */
};

static struct {
    double *touched;     /* when, by page */
    uint64_t unit;       /* pages that the host's kernel tells apart together, one or 512 */
    uint64_t count;      /* of units */
    uint32_t *order;     /* the units, shuffled */
    double *weights;     /* zipf: of the ranks up to each */
    double ended;        /* when the last pattern did */
    uint64_t random;
} pattern = {.random = UINT64_C(0x9e3779b97f4a7c15)};

enum access { READ, WRITE, EITHER };

static uint64_t random_below(uint64_t bound)
{
    pattern.random ^= pattern.random << 13;
    pattern.random ^= pattern.random >> 7;
    pattern.random ^= pattern.random << 17;
    return pattern.random % bound;
}

static void touch(uint64_t page, enum access access)
{
    volatile uint64_t *word = (volatile uint64_t *)(memory.bytes + page * PAGE_BYTES);
    uint64_t value = *word;

    if (access == WRITE || (access == EITHER && random_below(2))) {
        *word = value;
    }
    pattern.touched[page] = now();
}

/* A unit of several pages is used by one of them at a time: the others say nothing of it. */
static void touch_unit(uint64_t unit, enum access access)
{
    touch(unit * pattern.unit + (pattern.unit > 1 ? random_below(pattern.unit) : 0), access);
}

static int prepare(uint64_t unit)
{
    uint64_t count = memory.page_count / unit;
    double sum = 0;

    if (pattern.touched) {
        return unit == pattern.unit;
    }
    pattern.touched = calloc(memory.page_count, sizeof *pattern.touched);
    pattern.order = calloc(count, sizeof *pattern.order);
    pattern.weights = calloc(count, sizeof *pattern.weights);
    if (!count || !pattern.touched || !pattern.order || !pattern.weights) {
        say("error: pattern wants memory to be filled, and some more");
        return 0;
    }
    pattern.unit = unit;
    pattern.count = count;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t other = random_below(i + 1);

        pattern.order[i] = pattern.order[other];
        pattern.order[other] = (uint32_t)i;
        sum += 1 / (double)(i + 1);
        pattern.weights[i] = sum;
    }
    for (uint64_t i = 0; i < memory.page_count; i++) {
        touch(i, WRITE); /* from here on all is known */
    }
    return 1;
}

/* The rank that a uniform number falls on: rank r as often as 1 / r. */
static uint64_t zipf_rank(void)
{
    uint64_t low = 0, high = pattern.count - 1;
    double wanted = pattern.weights[high] * ((double)random_below(1 << 30) / (1 << 30));

    while (low < high) {
        uint64_t middle = (low + high) / 2;

        if (pattern.weights[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/*
 * The n-th touch of a pattern, and how many there are in the time that is asked about:
 * such that units of all ages around it come about.
 */
struct kind {
    const char *name;
    double touches_per_unit; /* in that time */
    double set;              /* share of the units that is used at a time */
    enum access access;
};

static const struct kind kinds[] = {
    {"uniform", 0.7, 1, EITHER},      /* half of them are idle for so long */
    {"zipf", 1, 1, EITHER},
    {"scan", 0.67, 1, EITHER},        /* one after the other; a third is */
    {"phases", 1, 0.125, EITHER},     /* another eighth every 3/4 of the time */
    {"read-only", 1, 0.125, READ},    /* always the same eighth */
    {"write-only", 1, 0.125, WRITE},
};

static uint64_t unit_of(const struct kind *kind, uint64_t touches, double elapsed, double idle)
{
    uint64_t count = pattern.count, set = (uint64_t)((double)count * kind->set);

    if (!strcmp(kind->name, "zipf")) {
        return pattern.order[zipf_rank()];
    }
    if (!strcmp(kind->name, "scan")) {
        return touches % count;
    }
    if (!strcmp(kind->name, "uniform")) {
        return random_below(count);
    }
    if (!strcmp(kind->name, "phases")) {
        return pattern.order[((uint64_t)(elapsed / (idle * 0.75)) * set + touches % set) % count];
    }
    return pattern.order[touches % set];
}

void command_pattern(const char *name, int seconds, int idle, int unit)
{
    const struct kind *kind = NULL;
    uint64_t touches = 0;
    double start, rate, owed = 0;

    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(kinds[i].name, name)) {
            kind = &kinds[i];
        }
    }
    if (!kind || idle < 1 || unit < 1 || !prepare((uint64_t)unit)) {
        say("error: there is no pattern %s", name);
        return;
    }
    rate = kind->touches_per_unit * (double)pattern.count / idle;
    start = now();
    for (double elapsed = 0; elapsed < seconds; elapsed = now() - start) {
        /* What could not be done in time is left out: a burst would be another pattern. */
        double next = now() + TICK_SECONDS, rest;

        for (owed += rate * TICK_SECONDS; owed >= 1; owed--) {
            touch_unit(unit_of(kind, touches++, elapsed, idle), kind->access);
        }
        rest = next - now();
        if (rest > 0) {
            usleep((useconds_t)(rest * 1e6));
        }
    }
    pattern.ended = now();
    say("pattern %s touches %llu pages %llu", name, (unsigned long long)touches,
        (unsigned long long)memory.page_count);
}

void command_since(void)
{
    say("since %.3f", now() - pattern.ended);
}

/* The device of the virtio port with this name. */
static int open_port(const char *wanted)
{
    DIR *ports = opendir("/sys/class/virtio-ports");
    char path[300], name[64];
    struct dirent *entry;
    int fd = -1;

    while (ports && fd < 0 && (entry = readdir(ports))) {
        FILE *file;

        snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
        file = fopen(path, "r");
        if (file && fscanf(file, "%63s", name) == 1 && !strcmp(name, wanted)) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            fd = open(path, O_WRONLY | O_CLOEXEC);
        }
        if (file) {
            fclose(file);
        }
    }
    if (ports) {
        closedir(ports);
    }
    return fd;
}

static int send_pages(int port, int pagemap, uint64_t first, uint64_t count)
{
    uint64_t entries[PAGES_AT_ONCE];
    struct truth lines[PAGES_AT_ONCE];
    uint64_t virtual_page = (uint64_t)(uintptr_t)memory.bytes / PAGE_BYTES + first;
    ssize_t size = (ssize_t)(count * sizeof *entries);

    if (pread(pagemap, entries, (size_t)size, (off_t)(virtual_page * sizeof *entries)) != size) {
        return -1;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (!(entries[i] & PAGEMAP_PRESENT)) {
            return -1;
        }
        lines[i].frame = (uint32_t)(entries[i] & PAGEMAP_FRAME);
        lines[i].idle_ms = (uint32_t)((pattern.ended - pattern.touched[first + i]) * 1000);
    }
    size = (ssize_t)(count * sizeof *lines);
    return write(port, lines, (size_t)size) == size ? 0 : -1;
}

void command_truth(void)
{
    int port = open_port("truth"), pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t page = 0;

    if (!pattern.touched || port < 0 || pagemap < 0) {
        say("error: truth wants a pattern, a port of that name and pagemap");
        return;
    }
    while (page < memory.page_count) {
        uint64_t left = memory.page_count - page;
        uint64_t count = left < PAGES_AT_ONCE ? left : PAGES_AT_ONCE;

        if (send_pages(port, pagemap, page, count)) {
            say("error: truth: %s", strerror(errno));
            break;
        }
        page += count;
    }
    close(port);
    close(pagemap);
    say("truth %llu", (unsigned long long)page);
}
