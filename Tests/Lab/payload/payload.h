/*
 * The guest's whole userland: one program that obeys commands from the serial line.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef PAYLOAD_H
#define PAYLOAD_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

/* Prints one line on the serial line, whole, whatever other threads print. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Seconds on a clock that never jumps. */
double now(void);

/* Loads a kernel module and what it depends on, once; complains by say(). */
int load_modules(const char *const *names);

/* ---- memory.c: the filled memory, of which every byte is known ---- */

struct memory {
    uint8_t *bytes;
    uint64_t page_count;
    uint64_t equal_from;   /* from this page on, many have equal contents */
    struct shadow *shadow; /* what each page must hold */
};
extern struct memory memory;

/* Percent of the guest's RAM as the firmware's map gives it. */
uint64_t ram_bytes(void);

/* `equal_percent` of the pages, the last ones, have few different contents. */
void command_fill(int percent, int huge, int equal_percent);
void command_hot(int percent);
void command_status(void);
/* Reads everything, or stops after so many machine checks. */
void command_verify(uint64_t machine_checks_max);

/*
 * The page's content is a function of (page, version, touches), all in its shadow. A page
 * is locked by whoever reads or writes it; a page somebody else has is not waited for.
 */
int page_try_lock(uint64_t page);
void page_lock(uint64_t page);
void page_unlock(uint64_t page);
void page_write_next_version(uint64_t page);
/* Writes one word, which counts how often. */
void page_touch(uint64_t page);
/* 0: every byte is right. Otherwise 1, and the first few of them are described. */
int page_check(uint64_t page);

/* Fills `count` bytes, a multiple of 8, from a seed: half of it constant. */
void pattern_fill(void *bytes, size_t count, uint64_t seed);

/* ---- pattern.c: touches of which it is known when ---- */

/* Touches units of so many pages, such that many are idle for about `idle` seconds. */
void command_pattern(const char *name, int seconds, int idle, int unit);
/* Says how long ago the last pattern ended. */
void command_since(void);
/* Sends what was touched when to the virtio port "truth". */
void command_truth(void);

/* ---- walk.c: what touches cost a vCPU ---- */

/* Writes once to each page of `percent` of the filled memory, in no order, so many times. */
void command_walk(int rounds, int first_percent, int percent);
/* The same, so many microseconds apart; says how long the writes took. */
void command_stalls(int seconds, int first_percent, int percent, int spacing);

/* ---- stress.c, devices.c ---- */

void command_stress(int seconds, int threads);
void command_blk(const char *device, int mebibytes, int rounds, int direct);
/* Pauses for so many milliseconds after a burst. */
void command_net(const char *from, const char *to, int frames, int pause);
/* From then on the guest gives memory back as it is told to. */
void command_balloon(void);

/* ---- service.c: redis-server and a client of its ---- */

void command_serve(int mebibytes, int latest, int percent);
void command_warm(int thousands, int hundredths);
void command_request(int seconds, int hundredths);
void command_recall(int count);

#endif
