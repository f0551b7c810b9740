/*
 * Memory of which every byte is known.
 *
 * A page's first half is pseudo-random from (page, version), so no two pages and no two
 * versions of a page are alike, unless equal ones are asked for; its second half is one
 * repeated word, so it compresses by about two. Its last word counts the touches of the hot
 * thread. What a page must hold is kept in a shadow table; both live in guest RAM, so both
 * are paged.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "payload.h"

#define WORDS (PAGE_BYTES / 8)
#define DESCRIBED_MAX 8
#define HOT_PAUSE_MICROSECONDS 100000
#define LOCKED_PAUSE_MICROSECONDS 50
#define HOT_NICENESS 5
#define HOT_REPORT_SECONDS 0.5
#define KEPT_FREE_BYTES (8u << 20)
#define NEVER UINT32_MAX /* the version of a page not filled yet */
#define HUGE_BYTES (2u << 20)
#define EQUAL_KINDS 64   /* contents that pages which are to be equal have */

struct shadow {
    _Atomic uint32_t locked;
    uint32_t version;
    uint64_t touches;
};

struct memory memory;

static struct {
    pthread_t thread;
    int started;
    uint64_t page_count;
    _Atomic uint64_t rounds;
    _Atomic uint64_t mismatches;
} hot;

static _Atomic int described;

/* Where a verifying thread goes on after a machine check. */
static __thread sigjmp_buf *recovery;
static _Atomic uint64_t poisoned;

/* SplitMix64: each output depends on the whole seed, at one multiply-shift chain a word. */
static uint64_t mix(uint64_t z)
{
    z += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void pattern_fill(void *bytes, size_t count, uint64_t seed)
{
    uint64_t *words = bytes, random = mix(seed);
    size_t half = count / 16;

    for (size_t i = 0; i < half; i++) {
        /* xorshift: three cheap steps a word; the emulator runs every one of them */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        words[i] = random;
    }
    for (size_t i = half; i < count / 8; i++) {
        words[i] = seed;
    }
}

static uint64_t seed_of(uint64_t page, uint32_t version)
{
    if (page >= memory.equal_from) {
        page = memory.page_count + page % EQUAL_KINDS;
    }
    return page << 32 | version;
}

static uint64_t *words_of(uint64_t page)
{
    return (uint64_t *)(memory.bytes + page * PAGE_BYTES);
}

/* The firmware's memory map counts what the kernel keeps for itself, too. */
uint64_t ram_bytes(void)
{
    unsigned long long start, end;
    uint64_t sum = 0;
    char line[256];
    FILE *file = fopen("/proc/iomem", "r");

    while (file && fgets(line, sizeof line, file)) {
        if (line[0] != ' ' && strstr(line, ": System RAM") &&
            sscanf(line, "%llx-%llx", &start, &end) == 2) {
            sum += end - start + 1;
        }
    }
    if (file) {
        fclose(file);
    }
    return sum;
}

int page_try_lock(uint64_t page)
{
    return !atomic_exchange_explicit(&memory.shadow[page].locked, 1, memory_order_acquire);
}

void page_lock(uint64_t page)
{
    while (!page_try_lock(page)) {
        usleep(LOCKED_PAUSE_MICROSECONDS);
    }
}

void page_unlock(uint64_t page)
{
    atomic_store_explicit(&memory.shadow[page].locked, 0, memory_order_release);
}

void page_write_next_version(uint64_t page)
{
    struct shadow *shadow = &memory.shadow[page];

    shadow->version = shadow->version == NEVER ? 0 : shadow->version + 1;
    shadow->touches = 0;
    pattern_fill(words_of(page), PAGE_BYTES, seed_of(page, shadow->version));
    words_of(page)[WORDS - 1] = 0;
}

void page_touch(uint64_t page)
{
    words_of(page)[WORDS - 1] = ++memory.shadow[page].touches;
}

/* Says where the page went wrong, and whether it looks lost (zeros) or old. */
static void describe(uint64_t page, const uint64_t *expected)
{
    const uint64_t *found = words_of(page);
    const char *kind = "other bytes";
    size_t first = 0, zeros = 0;

    if (atomic_fetch_add(&described, 1) >= DESCRIBED_MAX) {
        return;
    }
    while (first < WORDS - 1 && found[first] == expected[first]) {
        first++;
    }
    while (zeros < WORDS && !found[zeros]) {
        zeros++;
    }
    if (zeros == WORDS) {
        kind = "all zeros";
    } else if (found[WORDS / 2] >> 32 == page) {
        kind = "an older or newer version";
    }
    say("mismatch page %llu version %u offset %zu found %016llx expected %016llx: %s",
        (unsigned long long)page, memory.shadow[page].version, first * 8,
        (unsigned long long)found[first], (unsigned long long)expected[first], kind);
}

static void on_machine_check(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (!recovery) {
        psiginfo(info, "machine check outside a check");
        _exit(signal);
    }
    siglongjmp(*recovery, 1);
}

/* As page_check(), but a page that the machine refuses to read is counted and passed over. */
static int page_check_guarded(uint64_t page)
{
    sigjmp_buf here;
    int mismatch = 0;

    if (sigsetjmp(here, 1)) {
        if (atomic_fetch_add(&poisoned, 1) < DESCRIBED_MAX) {
            say("machine check page %llu", (unsigned long long)page);
        }
    } else {
        recovery = &here;
        mismatch = page_check(page);
    }
    recovery = NULL;
    return mismatch;
}

int page_check(uint64_t page)
{
    const struct shadow *shadow = &memory.shadow[page];
    uint64_t expected[WORDS];

    pattern_fill(expected, PAGE_BYTES, seed_of(page, shadow->version));
    expected[WORDS - 1] = shadow->touches;
    if (!memcmp(expected, words_of(page), PAGE_BYTES)) {
        return 0;
    }
    describe(page, expected);
    return 1;
}

/* A guest that runs out of memory has nothing to kill but this process, and panics. */
static int leaves_enough(uint64_t bytes)
{
    uint64_t shadows = bytes / PAGE_BYTES * sizeof(struct shadow);
    struct sysinfo info;

    sysinfo(&info);
    if (bytes + shadows + KEPT_FREE_BYTES <= info.freeram * info.mem_unit) {
        return 1;
    }
    say("error: %llu bytes cannot be filled and %u be left, of %llu that are free",
        (unsigned long long)bytes, KEPT_FREE_BYTES,
        (unsigned long long)info.freeram * info.mem_unit);
    return 0;
}

/* What is before it and behind costs addresses only. */
static void *map_aligned(uint64_t bytes, uint64_t alignment, int flags)
{
    uint8_t *start = mmap(NULL, bytes + alignment, PROT_READ | PROT_WRITE, flags, -1, 0);

    if (start == MAP_FAILED) {
        return MAP_FAILED;
    }
    return start + (-(uintptr_t)start & (alignment - 1));
}

void command_fill(int percent, int huge, int equal_percent)
{
    uint64_t bytes = ram_bytes() / 100 * (uint64_t)percent / PAGE_BYTES * PAGE_BYTES;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;

    if (memory.bytes) {
        say("error: already filled");
        return;
    }
    if (!leaves_enough(bytes)) {
        return;
    }
    memory.page_count = bytes / PAGE_BYTES;
    memory.equal_from = memory.page_count - memory.page_count / 100 * (uint64_t)equal_percent;
    memory.bytes = map_aligned(bytes, huge ? HUGE_BYTES : PAGE_BYTES, flags);
    memory.shadow = mmap(NULL, memory.page_count * sizeof(struct shadow), PROT_READ | PROT_WRITE,
                         flags, -1, 0);
    if (memory.bytes == MAP_FAILED || memory.shadow == MAP_FAILED) {
        say("error: no memory for %llu bytes", (unsigned long long)bytes);
        return;
    }
    madvise(memory.bytes, bytes, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    for (uint64_t page = 0; page < memory.page_count; page++) {
        memory.shadow[page].version = NEVER;
        page_write_next_version(page);
    }
    say("filled %llu equal %llu", (unsigned long long)bytes,
        (unsigned long long)(memory.page_count - memory.equal_from) * PAGE_BYTES);
}

/* Reads and writes each hot page, and checks what it read, over and over. */
static void *run_hot(void *unused)
{
    double told = 0;

    (void)unused;
    /* A third of the weight of whoever fills or verifies meanwhile. Linux counts a thread
     * as a process here. */
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), HOT_NICENESS);
    for (;;) {
        for (uint64_t page = 0; page < hot.page_count; page++) {
            uint64_t *last = &words_of(page)[WORDS - 1];

            page_lock(page);
            if (*last != memory.shadow[page].touches) {
                atomic_fetch_add(&hot.mismatches, 1);
            }
            page_touch(page);
            page_unlock(page);
        }
        atomic_fetch_add(&hot.rounds, 1);
        if (now() - told > HOT_REPORT_SECONDS) {
            told = now();
            say("rounds %llu", (unsigned long long)hot.rounds);
        }
        usleep(HOT_PAUSE_MICROSECONDS);
    }
    return NULL;
}

void command_hot(int percent)
{
    if (!memory.bytes || hot.started) {
        say("error: hot wants memory to be filled, and starts once");
        return;
    }
    hot.page_count = memory.page_count * (uint64_t)percent / 100;
    hot.started = !pthread_create(&hot.thread, NULL, run_hot, NULL);
    say("hot %llu", (unsigned long long)hot.page_count * PAGE_BYTES);
}

void command_status(void)
{
    say("status ram %llu filled %llu hot %llu rounds %llu mismatches %llu",
        (unsigned long long)ram_bytes(), (unsigned long long)memory.page_count * PAGE_BYTES,
        (unsigned long long)hot.page_count * PAGE_BYTES, (unsigned long long)hot.rounds,
        (unsigned long long)hot.mismatches);
}

void command_verify(uint64_t machine_checks_max)
{
    uint64_t mismatches = 0, step = memory.page_count / 10;
    struct sigaction action = {.sa_sigaction = on_machine_check, .sa_flags = SA_SIGINFO};

    sigaction(SIGBUS, &action, NULL);
    poisoned = 0;
    for (uint64_t page = 0; page < memory.page_count && poisoned < machine_checks_max; page++) {
        page_lock(page);
        mismatches += (uint64_t)page_check_guarded(page);
        page_unlock(page);
        if (step && page % step == step - 1) {
            say("verifying %llu mismatches %llu", (unsigned long long)(page + 1) * PAGE_BYTES,
                (unsigned long long)mismatches);
        }
    }
    say("verified %llu mismatches %llu poisoned %llu",
        (unsigned long long)memory.page_count * PAGE_BYTES,
        (unsigned long long)(mismatches + hot.mismatches), (unsigned long long)poisoned);
}
