/*
 * Records which pages a guest touches, tick by tick, as the trace that the policy's tests replay.
 * The pager is asked what it has seen: with RWP that is every access, reads among them.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lab.h"

#define TICK_SECONDS 1.0
#define ANSWER_SECONDS 60
#define CLASS_NONE 0   /* never in RAM */
#define CLASS_NEWEST 1 /* touched since the last pass */
#define CLASS_BEFORE 2 /* touched between the last two */

struct recorder {
    FILE *trace, *monitor;
    const char *image, *phase_file;
    char save[512], pass[512];
    uint64_t pages;
    uint64_t ticks;
    unsigned char *newest;  /* the pages that the last look found in the newest class */
    unsigned char *touched; /* the pages of the last tick */
    unsigned long long passes;
    double looked_at;
};

static volatile sig_atomic_t is_over;

static void end(int signal)
{
    (void)signal;
    is_over = 1;
}

static void put(FILE *file, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        fputc((int)(value >> (8 * i) & 0xff), file);
    }
}

static void put_varint(FILE *file, uint64_t value)
{
    for (; value >= 0x80; value >>= 7) {
        fputc((int)(value & 0x7f) | 0x80, file);
    }
    fputc((int)value, file);
}

static const char *ask(struct recorder *r, const char *command)
{
    const char *end, *answer = qmp_ask(r->monitor, command, ANSWER_SECONDS);

    if (!json_find(answer, "return", &end)) {
        die("record: %s: %s", command, answer);
    }
    return answer;
}

static unsigned long long passes(struct recorder *r)
{
    const char *end, *value = json_find(ask(r, "{\"execute\":\"query-memory-pager\"}"),
                                        "return.0.passes", &end);

    return value ? strtoull(value, NULL, 10) : 0;
}

/*
 * A pass ends a span of the pager's history. Setting the mode, even to what it is, brings one at
 * once; those that come by themselves are too far apart ever to come.
 */
static void end_span(struct recorder *r)
{
    unsigned long long before = r->passes;

    ask(r, r->pass);
    do {
        usleep(5000);
        r->passes = passes(r);
    } while (r->passes == before);
}

static unsigned phase(const char *path)
{
    FILE *file = fopen(path, "r");
    unsigned value = 0;

    if (!file || fscanf(file, "%u", &value) != 1) {
        die("record: no phase in %s", path);
    }
    fclose(file);
    return value;
}

static uint64_t run_end(const unsigned char *marked, uint64_t page, uint64_t pages)
{
    unsigned char first = marked[page];

    while (page < pages && marked[page] == first) {
        page++;
    }
    return page;
}

/* What is in use mostly goes on being so: only what is different from the tick before is written. */
static void put_tick(struct recorder *r, const unsigned char *changed, double seconds)
{
    uint64_t runs = 0, page, last = 0;

    for (page = 0; page < r->pages; page = run_end(changed, page, r->pages)) {
        runs += changed[page];
    }
    put_varint(r->trace, (uint64_t)(seconds * 1e3 + 0.5));
    put_varint(r->trace, phase(r->phase_file));
    put_varint(r->trace, runs);
    for (page = 0; page < r->pages; page = run_end(changed, page, r->pages)) {
        uint64_t length = run_end(changed, page, r->pages) - page;

        if (!changed[page]) {
            continue;
        }
        put_varint(r->trace, (page - last) << 1 | (length > 1));
        if (length > 1) {
            put_varint(r->trace, length - 2);
        }
        last = page + length;
    }
    if (fflush(r->trace)) {
        die("record: cannot write the trace");
    }
}

/*
 * What was touched since the last look is in the newest class. What was touched between that look
 * and the pass that followed it, and not again, is in the class before, together with what the
 * last look had found.
 */
static int is_touched(const struct recorder *r, uint64_t page, unsigned char class)
{
    if (!r->ticks) {
        return class != CLASS_NONE;
    }
    return class == CLASS_NEWEST || (class == CLASS_BEFORE && !r->newest[page]);
}

static void tick(struct recorder *r)
{
    struct hotness hotness;
    double before = r->looked_at;

    r->looked_at = now();
    if (passes(r) != r->passes) {
        die("record: a pass that was not asked for");
    }
    ask(r, r->save);
    hotness_read(r->image, &hotness);
    end_span(r);
    if (!r->ticks) {
        r->pages = hotness.pages;
        r->newest = calloc(r->pages, 1);
        r->touched = calloc(r->pages, 1);
        put(r->trace, r->pages, 4);
        before = r->looked_at;
    }
    for (uint64_t page = 0; page < r->pages; page++) {
        unsigned char class = hotness.class_of[page];
        unsigned char touched = (unsigned char)is_touched(r, page, class);

        hotness.class_of[page] = touched ^ r->touched[page];
        r->touched[page] = touched;
        r->newest[page] = class == CLASS_NEWEST;
    }
    put_tick(r, hotness.class_of, r->looked_at - before);
    r->ticks++;
    free(hotness.class_of);
}

/* record TRACE SOCKET PAGER IMAGE PHASE_FILE: until SIGTERM. The first tick is what is in RAM. */
int command_record(int argc, char **argv)
{
    struct recorder r = {0};
    double next;

    if (argc != 6) {
        die("record wants TRACE SOCKET PAGER IMAGE PHASE_FILE");
    }
    r.trace = fopen(argv[1], "wb");
    if (!r.trace) {
        die("record: cannot write %s", argv[1]);
    }
    r.monitor = qmp_connect(argv[2], ANSWER_SECONDS);
    r.image = argv[4];
    r.phase_file = argv[5];
    snprintf(r.save, sizeof r.save,
             "{\"execute\":\"memory-pager-save-hotness\","
             "\"arguments\":{\"id\":\"%s\",\"filename\":\"%s\"}}",
             argv[3], argv[4]);
    snprintf(r.pass, sizeof r.pass,
             "{\"execute\":\"qom-set\",\"arguments\":{\"path\":\"/objects/%s\","
             "\"property\":\"mode\",\"value\":\"observe\"}}",
             argv[3]);
    r.passes = passes(&r);
    signal(SIGTERM, end);
    fputs("frosttrc", r.trace);
    put(r.trace, 1, 2);
    for (next = now(); !is_over; next += TICK_SECONDS) {
        double rest = next - now();

        if (rest > 0) {
            usleep((useconds_t)(rest * 1e6));
        }
        tick(&r);
    }
    return 0;
}
