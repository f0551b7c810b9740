/*
 * The guest's init: mounts what it needs, says "ready", and obeys one command a line.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "payload.h"

#define SERIAL_LINE "/dev/ttyS0"
#define WORDS_MAX 8

static pthread_mutex_t serial_lock = PTHREAD_MUTEX_INITIALIZER;

void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length > (int)sizeof line - 2) {
        length = (int)sizeof line - 2;
    }
    line[length++] = '\n';
    pthread_mutex_lock(&serial_lock);
    if (write(STDOUT_FILENO, line, (size_t)length) != length) {
        _exit(1); /* without a voice there is no test: init's end panics the guest */
    }
    pthread_mutex_unlock(&serial_lock);
}

double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int load_modules(const char *const *names)
{
    char path[128];

    for (; *names; names++) {
        int fd;
        long answer;

        snprintf(path, sizeof path, "/modules/%s.ko", *names);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        answer = fd < 0 ? -1 : syscall(SYS_finit_module, fd, "", 0);
        if (answer && errno != EEXIST) {
            say("error: module %s: %s", *names, strerror(errno));
            return -1;
        }
        close(fd);
    }
    return 0;
}

static void mount_all(void)
{
    static const char *const mounts[][2] = {
        {"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}};

    for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
        mkdir(mounts[i][1], 0755);
        mount(mounts[i][0], mounts[i][1], mounts[i][0], 0, NULL);
    }
}

/* A line is a line: no echo, no editing, no signals. */
static void open_serial(void)
{
    struct termios mode;
    int fd = open(SERIAL_LINE, O_RDWR | O_NOCTTY);

    if (fd < 0) {
        _exit(1);
    }
    dup2(fd, STDIN_FILENO);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    if (!tcgetattr(fd, &mode)) {
        cfmakeraw(&mode);
        mode.c_oflag |= OPOST | ONLCR;
        tcsetattr(fd, TCSANOW, &mode);
    }
}

static void end_machine(int how)
{
    sync();
    reboot(how);
}

static int number(char **words, int count, int index, int otherwise)
{
    return index < count ? atoi(words[index]) : otherwise;
}

static const char *word(char **words, int count, int index, const char *otherwise)
{
    return index < count ? words[index] : otherwise;
}

static void obey(char **w, int n)
{
    if (!strcmp(w[0], "fill")) {
        command_fill(number(w, n, 1, 50), strcmp(word(w, n, 2, "huge"), "small"),
                     number(w, n, 3, 0));
    } else if (!strcmp(w[0], "hot")) {
        command_hot(number(w, n, 1, 10));
    } else if (!strcmp(w[0], "status")) {
        command_status();
    } else if (!strcmp(w[0], "verify")) {
        command_verify((uint64_t)number(w, n, 1, INT_MAX));
    } else if (!strcmp(w[0], "stress")) {
        command_stress(number(w, n, 1, 10), number(w, n, 2, get_nprocs()));
    } else if (!strcmp(w[0], "walk")) {
        command_walk(number(w, n, 1, 1), number(w, n, 2, 0), number(w, n, 3, 25));
    } else if (!strcmp(w[0], "stalls")) {
        command_stalls(number(w, n, 1, 2), number(w, n, 2, 0), number(w, n, 3, 16),
                       number(w, n, 4, 200));
    } else if (!strcmp(w[0], "pattern")) {
        command_pattern(word(w, n, 1, "uniform"), number(w, n, 2, 15), number(w, n, 3, 6),
                        number(w, n, 4, 1));
    } else if (!strcmp(w[0], "since")) {
        command_since();
    } else if (!strcmp(w[0], "truth")) {
        command_truth();
    } else if (!strcmp(w[0], "blk")) {
        command_blk(word(w, n, 1, "/dev/vda"), number(w, n, 2, 16), number(w, n, 3, 1),
                    !strcmp(word(w, n, 4, "direct"), "direct"));
    } else if (!strcmp(w[0], "net")) {
        command_net(word(w, n, 1, "eth0"), word(w, n, 2, "eth1"), number(w, n, 3, 64),
                    number(w, n, 4, 0));
    } else if (!strcmp(w[0], "serve")) {
        command_serve(number(w, n, 1, 64), !strcmp(word(w, n, 2, "scattered"), "latest"),
                      number(w, n, 3, 100));
    } else if (!strcmp(w[0], "warm")) {
        command_warm(number(w, n, 1, 100), number(w, n, 2, 100));
    } else if (!strcmp(w[0], "request")) {
        command_request(number(w, n, 1, 10), number(w, n, 2, 100));
    } else if (!strcmp(w[0], "recall")) {
        command_recall(number(w, n, 1, 1000));
    } else if (!strcmp(w[0], "balloon")) {
        command_balloon();
    } else if (!strcmp(w[0], "reboot")) {
        end_machine(RB_AUTOBOOT);
    } else if (!strcmp(w[0], "poweroff")) {
        end_machine(RB_POWER_OFF);
    } else if (!strcmp(w[0], "spoil") && memory.bytes) {
        memory.bytes[memory.page_count / 2 * PAGE_BYTES + 100] ^= 1; /* and tells nobody */
        say("spoilt");
    } else if (!strcmp(w[0], "crash")) {
        _exit(1); /* the end of init is a kernel panic */
    } else {
        say("error: unknown command %s", w[0]);
    }
}

int main(void)
{
    char line[256], *words[WORDS_MAX], *rest;

    mount_all();
    open_serial();
    say("ready cpus %d ram %llu uptime %.2f", get_nprocs(), (unsigned long long)ram_bytes(),
        now());
    while (fgets(line, sizeof line, stdin)) {
        int count = 0;

        for (char *w = strtok_r(line, " \r\n", &rest); w && count < WORDS_MAX;
             w = strtok_r(NULL, " \r\n", &rest)) {
            words[count++] = w;
        }
        if (count) {
            obey(words, count);
        }
    }
    return 1;
}
