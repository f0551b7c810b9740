/*
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lab.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *usage;
} commands[] = {
    {"exit", command_exit, "STATUS: end the emulated machine with this status"},
    {"wait", command_wait, "FILE OFFSET SECONDS PID REGEX [FATAL]: wait for a line in a log"},
    {"qmp", command_qmp, "SOCKET SECONDS COMMAND: run a QMP command, print what it returns"},
    {"json", command_json, "PATH…: print the values at these paths in the JSON text on standard input"},
    {"rss", command_rss, "PID [START LENGTH]…: resident bytes of a process, of each range"},
    {"sample", command_sample,
     "CSV SOCKET PID GUEST_LOG PHASE_FILE START LENGTH…: a time line, until the process ends"},
    {"dm", command_dm, "create|load NAME TARGET…: a device-mapper device"},
    {"hotness", command_hotness, "FILE SECONDS: pages that a hotness image calls idle for so long"},
    {"record", command_record,
     "TRACE SOCKET PAGER IMAGE PHASE_FILE: which pages a guest touches, until SIGTERM"},
    {"damon", command_damon, "REGIONS START INTERVALS: pages that DAMON calls idle for so long"},
    {"accuracy", command_accuracy,
     "TRUTH SECONDS MARGIN [PAGES]: judges such pages against what the guest knows"},
    {"size", command_size, "512M: the same in bytes"},
};

void die(const char *format, ...)
{
    va_list arguments;

    fputs("lab: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int command_size(int argc, char **argv)
{
    static const char units[] = "KMGT";
    unsigned long long bytes;
    const char *unit;
    char *end;

    if (argc != 2) {
        die("size wants one argument");
    }
    bytes = strtoull(argv[1], &end, 10);
    if (end == argv[1]) {
        die("'%s' is no size", argv[1]);
    }
    if (*end) {
        unit = strchr(units, *end);
        if (!unit || end[1]) {
            die("'%s' is no size: a number, then nothing or one of %s", argv[1], units);
        }
        bytes <<= 10 * (unit - units + 1);
    }
    printf("%llu\n", bytes);
    return 0;
}

int main(int argc, char **argv)
{
    size_t count = sizeof commands / sizeof *commands;

    for (size_t i = 0; argc > 1 && i < count; i++) {
        if (!strcmp(argv[1], commands[i].name)) {
            return commands[i].run(argc - 1, argv + 1);
        }
    }
    for (size_t i = 0; i < count; i++) {
        fprintf(stderr, "lab %s %s\n", commands[i].name, commands[i].usage);
    }
    return 2;
}
