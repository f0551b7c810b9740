/*
 * The demo's time line: every half second one line of CSV, and one of progress ("~ …") on
 * standard output. One process that lives as long as QEMU does: a shell loop would cost the
 * lab host's one CPU more than the pager that it looks at.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lab.h"

#define PERIOD_SECONDS 0.5
#define ANSWER_SECONDS 60
#define TAIL_BYTES 2048

struct sampler {
    FILE *csv, *monitor;
    long process;
    const char *guest_log, *phase_file;
    struct range ranges[RANGES_MAX];
    int range_count;
    double start;
};

/* The last bytes of a file as a string, "" if it cannot be read. */
static const char *tail(const char *path)
{
    static char text[TAIL_BYTES + 1];
    size_t length = 0;
    FILE *file = fopen(path, "r");

    if (file) {
        if (fseek(file, -TAIL_BYTES, SEEK_END)) {
            rewind(file); /* shorter than that */
        }
        length = fread(text, 1, TAIL_BYTES, file);
        fclose(file);
    }
    text[length] = '\0';
    return text;
}

/* What the hot thread reported last. */
static unsigned long long rounds(const char *guest_log)
{
    static unsigned long long last;
    unsigned long long value;

    for (const char *at = tail(guest_log); at; at = strstr(at + 1, "\nrounds ")) {
        char end;

        /* A number that is still being written has no end of line yet. */
        if (sscanf(at, "\nrounds %llu%c", &value, &end) == 2) {
            last = value;
        }
    }
    return last;
}

static unsigned long long field(const char *answer, const char *path)
{
    const char *end, *value = json_find(answer, path, &end);

    return value ? strtoull(value, NULL, 10) : 0;
}

static void sample(struct sampler *s)
{
    unsigned long long process_rss, ram_rss = 0, evicted;
    char phase[32] = "";
    const char *answer;
    double elapsed;

    sscanf(tail(s->phase_file), "%31[^\n]", phase);
    process_rss = rss_read(s->process, s->ranges, s->range_count);
    for (int i = 0; i < s->range_count; i++) {
        ram_rss += s->ranges[i].rss;
    }
    answer = qmp_ask(s->monitor, "{\"execute\":\"query-memory-pager\"}", ANSWER_SECONDS);
    evicted = field(answer, "return.0.evicted-bytes");
    elapsed = now() - s->start;
    fprintf(s->csv, "%.2f,%s,%llu,%llu,%llu,%llu,%llu,%llu,%llu\n", elapsed, phase, ram_rss,
            process_rss, evicted, field(answer, "return.0.resident-bytes"), rounds(s->guest_log),
            field(answer, "return.0.faults"), field(answer, "return.0.evictions"));
    fflush(s->csv);
    printf("~ %-13s resident %4llu MiB   evicted %4llu MiB   %4.0f s\n", phase, ram_rss >> 20,
           evicted >> 20, elapsed);
    fflush(stdout);
}

int command_sample(int argc, char **argv)
{
    struct sampler s = {.start = now()};

    if (argc < 8) {
        die("sample wants CSV SOCKET PID GUEST_LOG PHASE_FILE START LENGTH…");
    }
    s.csv = fopen(argv[1], "w");
    if (!s.csv) {
        die("sample: cannot write %s", argv[1]);
    }
    s.monitor = qmp_connect(argv[2], ANSWER_SECONDS);
    s.process = atol(argv[3]);
    s.guest_log = argv[4];
    s.phase_file = argv[5];
    s.range_count = rss_parse_ranges(argc - 6, argv + 6, s.ranges);
    fputs("seconds,phase,ram_rss,process_rss,evicted_bytes,resident_bytes,rounds,faults,"
          "evictions\n",
          s.csv);
    for (;;) {
        double next = now() + PERIOD_SECONDS, rest;

        sample(&s);
        rest = next - now();
        if (rest > 0) {
            usleep((useconds_t)(rest * 1e6));
        }
    }
}
