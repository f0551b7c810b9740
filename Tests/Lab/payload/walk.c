/*
 * A vCPU that goes through a part of the filled memory: what a touch costs it when it is
 * watched, and how long it waits for a page while others leave. What it writes is known to the
 * shadow table, so that all can be verified afterwards.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <string.h>

#include "payload.h"

#define STRIDE 7919u  /* a prime: all are touched, and no neighbours one after the other */
#define OCTAVES 40    /* of nanoseconds: eighteen minutes */
#define STEPS 16      /* to each: a bucket is 6 % wide */

struct part {
    uint64_t first, count;
};

/* Waits, by how long they were, in so little memory that it does not leave. */
static struct {
    uint32_t counts[OCTAVES * STEPS];
    uint64_t all, longest;
} waits;

static struct part part_of(int first_percent, int percent)
{
    uint64_t first = memory.page_count * (uint64_t)first_percent / 100;

    return (struct part){first, memory.page_count * (uint64_t)percent / 100};
}

static int is_within(int first_percent, int percent)
{
    return memory.bytes && first_percent >= 0 && percent > 0 && first_percent + percent <= 100;
}

void command_walk(int rounds, int first_percent, int percent)
{
    struct part part;
    uint64_t at = 0;
    double begin;

    if (rounds < 1 || !is_within(first_percent, percent)) {
        say("error: walk wants filled memory, and a part of it");
        return;
    }
    part = part_of(first_percent, percent);
    begin = now();
    for (int round = 0; round < rounds; round++) {
        for (uint64_t i = 0; i < part.count; i++) {
            page_touch(part.first + at);
            at = (at + STRIDE) % part.count;
        }
    }
    say("walked touches %llu nanoseconds %.0f", (unsigned long long)part.count * (unsigned)rounds,
        (now() - begin) * 1e9);
}

static void note_wait(uint64_t nanoseconds)
{
    unsigned octave = nanoseconds < STEPS ? 0 : 63u - (unsigned)__builtin_clzll(nanoseconds) - 4u;
    uint64_t step = octave ? (nanoseconds >> octave) - STEPS : nanoseconds;
    uint64_t bucket = octave ? (octave + 1) * STEPS + step : step;

    waits.counts[bucket < OCTAVES * STEPS ? bucket : OCTAVES * STEPS - 1]++;
    waits.all++;
    waits.longest = nanoseconds > waits.longest ? nanoseconds : waits.longest;
}

/* The upper end of the bucket that the share, in thousandths, falls into. */
static uint64_t wait_of(unsigned thousandths)
{
    uint64_t left = waits.all * thousandths / 1000;

    for (uint64_t bucket = 0; bucket < OCTAVES * STEPS; bucket++) {
        if (left < waits.counts[bucket]) {
            uint64_t octave = bucket / STEPS;

            return octave ? (bucket % STEPS + STEPS + 1) << (octave - 1) : bucket + 1;
        }
        left -= waits.counts[bucket];
    }
    return waits.longest;
}

void command_stalls(int seconds, int first_percent, int percent, int spacing)
{
    struct part part;
    uint64_t at = 0;
    double begin, next;

    if (!is_within(first_percent, percent)) {
        say("error: stalls wants filled memory, and a part of it");
        return;
    }
    part = part_of(first_percent, percent);
    memset(&waits, 0, sizeof waits);
    begin = next = now();
    while (next < begin + seconds) {
        double before;

        while ((before = now()) < next) {
        }
        page_touch(part.first + at);
        note_wait((uint64_t)((now() - before) * 1e9));
        at = (at + STRIDE) % part.count;
        next = before + spacing / 1e6;
    }
    say("stalls touches %llu p50 %llu p99 %llu p999 %llu longest %llu", (unsigned long long)waits.all,
        (unsigned long long)wait_of(500), (unsigned long long)wait_of(990),
        (unsigned long long)wait_of(999), (unsigned long long)waits.longest);
}
