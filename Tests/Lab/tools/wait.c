/*
 * Waits for a line in a growing log: the guest's serial output.
 *
 * Prints "OFFSET LINE": where the search should go on, and the line that matched.
 * Status 0: matched; 3: a line matched FATAL first; 4: time is up; 5: process PID ended.
 * A program rather than a loop of tail and grep, because the lab host has one slow CPU
 * and the guest needs it.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lab.h"

enum { MATCHED = 0, FATAL = 3, TIME_IS_UP = 4, PROCESS_ENDED = 5 };

#define POLL_MICROSECONDS 50000

struct search {
    regex_t wanted;
    regex_t fatal;
    int has_fatal;
    FILE *file;
    long offset; /* of the first line not looked at */
    char *line;
    size_t capacity;
};

static void compile(regex_t *regex, const char *text)
{
    if (regcomp(regex, text, REG_EXTENDED | REG_NOSUB)) {
        die("'%s' is no extended regular expression", text);
    }
}

/* Looks at the whole lines that are there; -1 if none decides. */
static int look(struct search *s)
{
    ssize_t length;

    clearerr(s->file);
    if (fseek(s->file, s->offset, SEEK_SET)) {
        die("cannot seek in the log");
    }
    while ((length = getline(&s->line, &s->capacity, s->file)) > 0) {
        if (s->line[length - 1] != '\n') {
            return -1; /* the rest is still to come */
        }
        s->offset += length;
        while (length && strchr("\r\n", s->line[length - 1])) {
            s->line[--length] = '\0';
        }
        if (!regexec(&s->wanted, s->line, 0, NULL, 0)) {
            return MATCHED;
        }
        if (s->has_fatal && !regexec(&s->fatal, s->line, 0, NULL, 0)) {
            return FATAL;
        }
    }
    return -1;
}

/* A process that has ended is gone, or a zombie that its parent has not fetched yet. */
static int process_ended(long process)
{
    char path[64], state = 'Z';
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/stat", process);
    file = fopen(path, "r");
    if (file) {
        if (fscanf(file, "%*[^)]) %c", &state) != 1) {
            state = 'Z';
        }
        fclose(file);
    }
    return state == 'Z';
}

int command_wait(int argc, char **argv)
{
    struct search search = {0};
    double deadline;
    long process;
    int result, ended = 0;

    if (argc != 6 && argc != 7) {
        die("wait wants FILE OFFSET SECONDS PID REGEX [FATAL]");
    }
    search.file = fopen(argv[1], "r");
    if (!search.file) {
        die("cannot open %s", argv[1]);
    }
    search.offset = atol(argv[2]);
    deadline = now() + atof(argv[3]);
    process = atol(argv[4]);
    compile(&search.wanted, argv[5]);
    if (argc == 7 && *argv[6]) {
        compile(&search.fatal, argv[6]);
        search.has_fatal = 1;
    }
    for (;;) {
        result = look(&search);
        if (result < 0 && ended) {
            result = PROCESS_ENDED;
        } else if (result < 0 && now() > deadline) {
            result = TIME_IS_UP;
        }
        if (result >= 0) {
            break;
        }
        /* Asked before the pause: the last words of a process are still to be heard. */
        ended = process && process_ended(process);
        usleep(POLL_MICROSECONDS);
    }
    printf("%ld %s\n", search.offset, result == MATCHED || result == FATAL ? search.line : "");
    return result;
}
