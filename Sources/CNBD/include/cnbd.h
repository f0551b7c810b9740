/*
 * One NBD connection through libnbd, without waiting except where a name says so. libnbd
 * is loaded when the first connection is wanted, so that a program that has none needs
 * neither it nor the TLS library behind it. Functions return a value at or above zero, or a
 * negated errno. A connection is used by one thread at a time.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CNBD_H
#define CNBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Besides errnos, what cnbd_connect answers. */
enum {
    CNBD_NO_LIBRARY = -10101,  /* libnbd cannot be loaded, or is too old */
    CNBD_BAD_TARGET = -10102,  /* the URI or the folder of certificates is not usable */
    CNBD_UNREACHABLE = -10103, /* no connection, or no agreement with the server */
    CNBD_CANCELLED = -10104    /* `cancel` became readable */
};

/* Commands that may be under way at once on one connection. */
enum { CNBD_COMMANDS_MAX = 256 };

struct cnbd;

/* What the server says of the export. */
struct cnbd_export {
    uint64_t size;          /* bytes */
    uint64_t block_min;     /* 0: not said */
    uint64_t block_max;     /* 0: not said */
    bool is_read_only;
    bool can_trim;
    bool can_multi_conn;
};

struct cnbd_completion {
    uint64_t token;
    int32_t error; /* 0 or an errno. ENOTCONN: the connection ended before the answer */
    uint32_t reserved;
};

/*
 * Connects and negotiates; waits for `timeout` ns at most, and while names are resolved.
 * `folder`: NULL, or certificates as libnbd wants them (ca-cert.pem, client-cert.pem,
 * client-key.pem), or pre-shared keys in keys.psk. `cancel`: a descriptor that ends the
 * wait when it is readable. `text` gets a reason when the answer is negative.
 */
int cnbd_connect(const char *uri, const char *folder, uint64_t timeout, int cancel, struct cnbd **out,
                 struct cnbd_export *export, char *text, size_t text_size);
/* Commands under way are given up: their memory is not touched any more. */
void cnbd_close(struct cnbd *connection);
/* Says good-bye to the server, waiting for a moment, and closes. */
void cnbd_close_politely(struct cnbd *connection);

int cnbd_descriptor(const struct cnbd *connection);
/* What to poll the descriptor for: CNBD_READABLE, CNBD_WRITABLE or both. 0: it is dead. */
enum { CNBD_READABLE = 1, CNBD_WRITABLE = 2 };
unsigned cnbd_interest(const struct cnbd *connection);

/* Start a command. -EBUSY: as many as may be are under way. -ENOTCONN: the connection is dead. */
int cnbd_read(struct cnbd *connection, void *to, size_t length, uint64_t offset, uint64_t token);
int cnbd_write(struct cnbd *connection, const void *from, size_t length, uint64_t offset, uint64_t token);
int cnbd_trim(struct cnbd *connection, uint64_t length, uint64_t offset, uint64_t token);
/*
 * Sends and receives what can be without waiting, until about `answers` commands have finished,
 * and takes all that have: at most CNBD_COMMANDS_MAX. `is_dead` says whether the connection has
 * ended; it completes nothing more then.
 */
int cnbd_drive(struct cnbd *connection, struct cnbd_completion *completions, int answers, bool *is_dead);

/* A command from its start to its end, on a connection without others; waits for `timeout` ns at most. */
int cnbd_read_and_wait(struct cnbd *connection, void *to, size_t length, uint64_t offset, uint64_t timeout,
                       int cancel);
int cnbd_write_and_wait(struct cnbd *connection, const void *from, size_t length, uint64_t offset,
                        uint64_t timeout, int cancel);

#endif
