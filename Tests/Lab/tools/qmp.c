/*
 * Runs one QMP command over a fresh connection and prints what it returns. Events that
 * come in between are left alone: the scenario keeps a second monitor open for those.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lab.h"

/* Past the stream, which is for reading only: a stream both ways would have to seek. */
static void send_line(FILE *monitor, const char *text)
{
    if (dprintf(fileno(monitor), "%s\n", text) < 0) {
        die("qmp: the monitor hung up");
    }
}

static const char *answer(FILE *monitor)
{
    static char *line;
    static size_t capacity;
    const char *end;

    do {
        if (getline(&line, &capacity, monitor) < 0) {
            die("qmp: the monitor hung up");
        }
    } while (!json_find(line, "return", &end) && !json_find(line, "error", &end));
    return line;
}

const char *qmp_ask(FILE *monitor, const char *command, int seconds)
{
    const char *line;

    alarm((unsigned)seconds);
    send_line(monitor, command);
    line = answer(monitor);
    alarm(0);
    return line;
}

FILE *qmp_connect(const char *path, int seconds)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FILE *monitor;

    if (fd < 0 || strlen(path) >= sizeof address.sun_path) {
        die("qmp: cannot make a socket for %s", path);
    }
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) {
        die("qmp: nobody listens on %s", path);
    }
    monitor = fdopen(fd, "r");
    if (!monitor) {
        die("qmp: out of memory");
    }
    qmp_ask(monitor, "{\"execute\":\"qmp_capabilities\"}", seconds);
    return monitor;
}

int command_qmp(int argc, char **argv)
{
    const char *line, *value, *end;

    if (argc != 4) {
        die("qmp wants SOCKET SECONDS COMMAND");
    }
    line = qmp_ask(qmp_connect(argv[1], atoi(argv[2])), argv[3], atoi(argv[2]));
    value = json_find(line, "return", &end);
    if (!value) {
        value = json_find(line, "error", &end);
        fprintf(stderr, "%.*s\n", (int)(end - value), value);
        return 1;
    }
    printf("%.*s\n", (int)(end - value), value);
    return 0;
}
