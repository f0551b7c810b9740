/*
 * Resident bytes by the kernel's own account, /proc/PID/smaps: of the whole process
 * first, then of each range. A pager registers parts of a block in different ways, which
 * splits the block into many mappings; so each is counted by its addresses. A mapping
 * that straddles a range's end would make the figure ambiguous, and is an error.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>

#include "lab.h"

/* The range that holds the mapping; NULL if none touches it. */
static struct range *range_of(struct range *ranges, int count, unsigned long long start,
                              unsigned long long end)
{
    for (int i = 0; i < count; i++) {
        if (start >= ranges[i].start && end <= ranges[i].end) {
            return &ranges[i];
        }
        if (start < ranges[i].end && end > ranges[i].start) {
            die("rss: the mapping %llx-%llx straddles the range %llx-%llx", start, end,
                ranges[i].start, ranges[i].end);
        }
    }
    return NULL;
}

unsigned long long rss_read(long process, struct range *ranges, int count)
{
    unsigned long long total = 0, start, end, kilobytes;
    struct range *current = NULL;
    char path[64], line[512];
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/smaps", process);
    file = fopen(path, "r");
    if (!file) {
        die("rss: cannot read %s", path);
    }
    for (int i = 0; i < count; i++) {
        ranges[i].rss = 0;
    }
    while (fgets(line, sizeof line, file)) {
        /* Only a mapping's own line starts with a hexadecimal digit in lower case. */
        if (line[0] > '9' && (line[0] < 'a' || line[0] > 'f') && line[0] != 'R') {
            continue;
        }
        if (sscanf(line, "Rss: %llu kB", &kilobytes) == 1) {
            total += kilobytes << 10;
            if (current) {
                current->rss += kilobytes << 10;
            }
        } else if (sscanf(line, "%llx-%llx ", &start, &end) == 2) {
            current = range_of(ranges, count, start, end);
        }
    }
    fclose(file);
    return total;
}

int rss_parse_ranges(int argc, char **argv, struct range *ranges)
{
    int count = argc / 2;

    if (argc % 2 || count > RANGES_MAX) {
        die("START LENGTH pairs are wanted, at most %d", RANGES_MAX);
    }
    for (int i = 0; i < count; i++) {
        ranges[i].start = strtoull(argv[2 * i], NULL, 0);
        ranges[i].end = ranges[i].start + strtoull(argv[2 * i + 1], NULL, 0);
    }
    return count;
}

int command_rss(int argc, char **argv)
{
    struct range ranges[RANGES_MAX];
    int count;

    if (argc < 2) {
        die("rss wants PID [START LENGTH]…");
    }
    count = rss_parse_ranges(argc - 2, argv + 2, ranges);
    printf("%llu", rss_read(atol(argv[1]), ranges, count));
    for (int i = 0; i < count; i++) {
        printf(" %llu", ranges[i].rss);
    }
    putchar('\n');
    return 0;
}
