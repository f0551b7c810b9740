/*
 * Random reads and versioned writes by several threads, each write known to the shadow
 * table: a lost write, an old page or a torn one is a mismatch.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "payload.h"

#define THREADS_MAX 16
#define PROGRESS_SECONDS 5

struct worker {
    pthread_t thread;
    uint64_t random;
    double deadline;
};

static _Atomic uint64_t reads, writes, mismatches;

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

static void *run_worker(void *argument)
{
    struct worker *worker = argument;

    while (now() < worker->deadline) {
        uint64_t random = next(&worker->random);
        uint64_t page = (random >> 8) % memory.page_count;

        if (!page_try_lock(page)) {
            continue;
        }
        /* A write checks first what it overwrites, or a lost one would go unnoticed. */
        atomic_fetch_add(&mismatches, (uint64_t)page_check(page));
        if (random & 1) {
            page_write_next_version(page);
            atomic_fetch_add(&writes, 1);
        } else {
            atomic_fetch_add(&reads, 1);
        }
        page_unlock(page);
    }
    return NULL;
}

static void report(const char *label)
{
    say("%s reads %llu writes %llu mismatches %llu", label, (unsigned long long)reads,
        (unsigned long long)writes, (unsigned long long)mismatches);
}

void command_stress(int seconds, int threads)
{
    struct worker workers[THREADS_MAX];
    double deadline = now() + seconds;

    if (!memory.bytes || threads < 1 || threads > THREADS_MAX) {
        say("error: stress wants filled memory and 1 to %d threads", THREADS_MAX);
        return;
    }
    reads = writes = mismatches = 0;
    for (int i = 0; i < threads; i++) {
        workers[i].random = UINT64_C(0x2545f4914f6cdd1d) * (uint64_t)(i + 1);
        workers[i].deadline = deadline;
        if (pthread_create(&workers[i].thread, NULL, run_worker, &workers[i])) {
            say("error: cannot start thread %d", i);
            return;
        }
    }
    while (now() + PROGRESS_SECONDS < deadline) {
        sleep(PROGRESS_SECONDS);
        report("stressing");
    }
    for (int i = 0; i < threads; i++) {
        pthread_join(workers[i].thread, NULL);
    }
    report("stress");
}
