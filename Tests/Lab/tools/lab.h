/*
 * lab: the few things a scenario needs that busybox has not, as one static program.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef LAB_H
#define LAB_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Every command takes its arguments from argv[1] on and returns the exit status. */
int command_exit(int argc, char **argv);
int command_wait(int argc, char **argv);
int command_qmp(int argc, char **argv);
int command_json(int argc, char **argv);
int command_rss(int argc, char **argv);
int command_dm(int argc, char **argv);
int command_sample(int argc, char **argv);
int command_hotness(int argc, char **argv);
int command_damon(int argc, char **argv);
int command_accuracy(int argc, char **argv);
int command_record(int argc, char **argv);
int command_size(int argc, char **argv);

/* Prints "lab: MESSAGE" and ends the program with status 1. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Seconds on a clock that never jumps. */
double now(void);

/*
 * Finds the value at PATH ("return.0.fault-time.p50") in the JSON text and returns its
 * bounds through *end. NULL if there is none.
 */
const char *json_find(const char *text, const char *path, const char **end);

/* A monitor that is connected and ready for commands; a command that takes longer than
 * `seconds` ends the program by a signal. */
FILE *qmp_connect(const char *path, int seconds);
/* The answer to a command: an object with a member "return" or "error". */
const char *qmp_ask(FILE *monitor, const char *command, int seconds);

#define PAGE_BYTES 4096

/* All of a file. */
unsigned char *read_file(const char *path, size_t *length);

#define CLASS_OUT 15
/* A hotness image: pages of a class have been idle for so many nanoseconds at least. */
struct hotness {
    uint64_t pages, classes, idle[CLASS_OUT + 1];
    unsigned char *class_of; /* of each page; to be freed */
};
void hotness_read(const char *path, struct hotness *hotness);

/* Neighbours that are all told to be idle are printed as one range: FIRST COUNT. */
void tell_idle(uint64_t page, uint64_t count, int is_idle);

#define RANGES_MAX 16
struct range {
    unsigned long long start, end, rss;
};
/* START LENGTH pairs; returns how many. */
int rss_parse_ranges(int argc, char **argv, struct range *ranges);
/* Fills in each range's rss and returns the whole process's. */
unsigned long long rss_read(long process, struct range *ranges, int count);

#endif
