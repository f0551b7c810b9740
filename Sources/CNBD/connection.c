#include "cnbd.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "library.h"

/* A command from its start until its completion is taken. */
struct command {
    struct cnbd *owner;
    uint64_t token;
    int32_t error;
    struct command *next; /* in `unused`, or in `finished` */
};

struct cnbd {
    const struct cnbd_library *nbd;
    struct nbd_handle *handle;
    struct command commands[CNBD_COMMANDS_MAX];
    struct command *unused;
    struct command *finished; /* oldest first */
    struct command **finished_end;
    unsigned finished_count;
};

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static int say(char *text, size_t size, int answer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, size, format, arguments);
    va_end(arguments);
    return answer;
}

/* libnbd's own words for the calling thread's last failure, without the name of its function. */
static const char *last_error(const struct cnbd_library *nbd)
{
    const char *text = nbd->nbd_get_error();
    if (text == NULL) {
        return "libnbd gives no reason";
    }
    const char *rest = strncmp(text, "nbd_", 4) == 0 ? strstr(text, ": ") : NULL;
    return rest != NULL ? rest + 2 : text;
}

static bool is_dead(const struct cnbd *connection)
{
    return connection->nbd->nbd_aio_is_dead(connection->handle) ||
           connection->nbd->nbd_aio_is_closed(connection->handle);
}

int cnbd_descriptor(const struct cnbd *connection)
{
    return connection->nbd->nbd_aio_get_fd(connection->handle);
}

unsigned cnbd_interest(const struct cnbd *connection)
{
    unsigned direction = connection->nbd->nbd_aio_get_direction(connection->handle);
    return (direction & LIBNBD_AIO_DIRECTION_READ ? CNBD_READABLE : 0u) |
           (direction & LIBNBD_AIO_DIRECTION_WRITE ? CNBD_WRITABLE : 0u);
}

static short poll_events(unsigned interest)
{
    return (short)((interest & CNBD_READABLE ? POLLIN : 0) | (interest & CNBD_WRITABLE ? POLLOUT : 0));
}

/* Tells libnbd what the descriptor is ready for. Negative: libnbd has a reason ready. */
static int notify(struct cnbd *connection, short events)
{
    if (events & (POLLIN | POLLHUP | POLLERR)) {
        /* Reading also notices the end of the connection, where it may be done. */
        if (cnbd_interest(connection) & CNBD_READABLE) {
            return connection->nbd->nbd_aio_notify_read(connection->handle);
        }
        return connection->nbd->nbd_aio_notify_write(connection->handle);
    }
    return connection->nbd->nbd_aio_notify_write(connection->handle);
}

/* Waits for the descriptor and goes one step on. */
static int step(struct cnbd *connection, uint64_t deadline, int cancel)
{
    uint64_t time = now();
    if (time >= deadline) {
        return -ETIMEDOUT;
    }
    struct pollfd polled[2] = {
        {.fd = cnbd_descriptor(connection), .events = poll_events(cnbd_interest(connection))},
        {.fd = cancel, .events = POLLIN},
    };
    int count = poll(polled, 2, (int)((deadline - time + 999999) / 1000000));
    if (count < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    if (polled[1].revents != 0) {
        return CNBD_CANCELLED;
    }
    if (polled[0].revents == 0) {
        return 0;
    }
    return notify(connection, polled[0].revents) < 0 ? -ENOTCONN : 0;
}

static struct cnbd *make(const struct cnbd_library *nbd)
{
    struct cnbd *connection = calloc(1, sizeof *connection);
    if (connection == NULL) {
        return NULL;
    }
    connection->nbd = nbd;
    connection->finished_end = &connection->finished;
    for (int i = 0; i < CNBD_COMMANDS_MAX; i++) {
        connection->commands[i].owner = connection;
        connection->commands[i].next = connection->unused;
        connection->unused = &connection->commands[i];
    }
    connection->handle = nbd->nbd_create();
    if (connection->handle == NULL) {
        free(connection);
        return NULL;
    }
    return connection;
}

static bool has_file(const char *folder, const char *name, char *path, size_t size)
{
    return snprintf(path, size, "%s/%s", folder, name) < (int)size && access(path, R_OK) == 0;
}

static int use_folder(struct cnbd *connection, const char *folder, char *text, size_t text_size)
{
    char path[4096];
    int answer;
    if (has_file(folder, "keys.psk", path, sizeof path)) {
        answer = connection->nbd->nbd_set_tls_psk_file(connection->handle, path);
    } else if (has_file(folder, "ca-cert.pem", path, sizeof path)) {
        answer = connection->nbd->nbd_set_tls_certificates(connection->handle, folder);
    } else {
        /* libnbd would go on without. */
        return say(text, text_size, CNBD_BAD_TARGET, "%s has neither keys.psk nor ca-cert.pem", folder);
    }
    return answer < 0 ? say(text, text_size, CNBD_BAD_TARGET, "%s", last_error(connection->nbd)) : 0;
}

static int prepare(struct cnbd *connection, const char *folder, char *text, size_t text_size)
{
    const struct cnbd_library *nbd = connection->nbd;
    struct nbd_handle *handle = connection->handle;
    if (nbd->nbd_supports_uri(handle) != 1 ||
        nbd->nbd_set_uri_allow_transports(
            handle, LIBNBD_ALLOW_TRANSPORT_TCP | LIBNBD_ALLOW_TRANSPORT_UNIX) < 0 ||
        nbd->nbd_set_uri_allow_local_file(handle, false) < 0) {
        return say(text, text_size, CNBD_NO_LIBRARY, "libnbd cannot read URIs");
    }
    return folder != NULL ? use_folder(connection, folder, text, text_size) : 0;
}

static int negotiate(struct cnbd *connection, const char *uri, uint64_t deadline, int cancel)
{
    const struct cnbd_library *nbd = connection->nbd;
    if (nbd->nbd_aio_connect_uri(connection->handle, uri) < 0) {
        return -ENOTCONN;
    }
    while (nbd->nbd_aio_is_connecting(connection->handle) ||
           nbd->nbd_aio_is_negotiating(connection->handle)) {
        int answer = step(connection, deadline, cancel);
        if (answer < 0) {
            return answer;
        }
    }
    return nbd->nbd_aio_is_ready(connection->handle) ? 0 : -ENOTCONN;
}

static int describe(struct cnbd *connection, struct cnbd_export *export)
{
    const struct cnbd_library *nbd = connection->nbd;
    struct nbd_handle *handle = connection->handle;
    int64_t size = nbd->nbd_get_size(handle);
    int64_t block_min = nbd->nbd_get_block_size(handle, LIBNBD_SIZE_MINIMUM);
    int64_t block_max = nbd->nbd_get_block_size(handle, LIBNBD_SIZE_MAXIMUM);
    if (size < 0 || block_min < 0 || block_max < 0) {
        return -1;
    }
    *export = (struct cnbd_export){
        .size = (uint64_t)size,
        .block_min = (uint64_t)block_min,
        .block_max = (uint64_t)block_max,
        .is_read_only = nbd->nbd_is_read_only(handle) != 0,
        .can_trim = nbd->nbd_can_trim(handle) == 1,
        .can_multi_conn = nbd->nbd_can_multi_conn(handle) == 1,
    };
    return 0;
}

/* What `negotiate` answered, for the user. */
static int explain(struct cnbd *connection, int answer, char *text, size_t text_size)
{
    if (answer == CNBD_CANCELLED) {
        return say(text, text_size, answer, "cancelled");
    }
    if (answer == -ETIMEDOUT) {
        return say(text, text_size, CNBD_UNREACHABLE, "no answer");
    }
    const char *reason = last_error(connection->nbd);
    if (strstr(reason, "requires TLS") != NULL) {
        return say(text, text_size, CNBD_UNREACHABLE, "the server demands TLS: nbds:// or nbds+unix://");
    }
    if (strstr(reason, "refused TLS") != NULL) {
        return say(text, text_size, CNBD_UNREACHABLE, "the server has no TLS");
    }
    int kind = connection->nbd->nbd_get_errno() == EINVAL ? CNBD_BAD_TARGET : CNBD_UNREACHABLE;
    return say(text, text_size, kind, "%s", reason);
}

int cnbd_connect(const char *uri, const char *folder, uint64_t timeout, int cancel, struct cnbd **out,
                 struct cnbd_export *export, char *text, size_t text_size)
{
    const struct cnbd_library *nbd = cnbd_library();
    if (nbd == NULL) {
        return say(text, text_size, CNBD_NO_LIBRARY, "libnbd.so.0 cannot be loaded");
    }
    struct cnbd *connection = make(nbd);
    if (connection == NULL) {
        return say(text, text_size, -ENOMEM, "no memory");
    }
    int answer = prepare(connection, folder, text, text_size);
    if (answer == 0) {
        answer = negotiate(connection, uri, now() + timeout, cancel);
        if (answer < 0 || describe(connection, export) < 0) {
            answer = explain(connection, answer, text, text_size);
        }
    }
    if (answer < 0) {
        cnbd_close(connection);
        return answer;
    }
    *out = connection;
    return 0;
}

void cnbd_close(struct cnbd *connection)
{
    connection->nbd->nbd_close(connection->handle);
    free(connection);
}

void cnbd_close_politely(struct cnbd *connection)
{
    enum { PATIENCE = 200000000 }; /* ns */
    uint64_t deadline = now() + PATIENCE;
    if (!is_dead(connection) && connection->nbd->nbd_aio_disconnect(connection->handle, 0) == 0) {
        while (!is_dead(connection) && step(connection, deadline, -1) == 0) {
        }
    }
    cnbd_close(connection);
}

/* libnbd calls it from within any of its functions, also on closing. */
static int complete(void *data, int *error)
{
    struct command *command = data;
    struct cnbd *connection = command->owner;
    command->error = *error;
    command->next = NULL;
    *connection->finished_end = command;
    connection->finished_end = &command->next;
    connection->finished_count++;
    return 1; /* nothing of it needs to be remembered */
}

static struct command *take(struct cnbd *connection, uint64_t token)
{
    struct command *command = connection->unused;
    if (command != NULL) {
        connection->unused = command->next;
        command->token = token;
    }
    return command;
}

static void give_back(struct command *command)
{
    command->next = command->owner->unused;
    command->owner->unused = command;
}

/* `cookie`: what libnbd answered to the start of the command. */
static int started(struct command *command, int64_t cookie)
{
    if (cookie >= 0) {
        return 0;
    }
    int code = command->owner->nbd->nbd_get_errno();
    bool is_gone = is_dead(command->owner);
    give_back(command);
    if (is_gone) {
        return -ENOTCONN;
    }
    return code > 0 ? -code : -EINVAL;
}

int cnbd_read(struct cnbd *connection, void *to, size_t length, uint64_t offset, uint64_t token)
{
    struct command *command = take(connection, token);
    if (command == NULL) {
        return -EBUSY;
    }
    nbd_completion_callback callback = {.callback = complete, .user_data = command};
    return started(command, connection->nbd->nbd_aio_pread(connection->handle, to, length, offset, callback, 0));
}

int cnbd_write(struct cnbd *connection, const void *from, size_t length, uint64_t offset, uint64_t token)
{
    struct command *command = take(connection, token);
    if (command == NULL) {
        return -EBUSY;
    }
    nbd_completion_callback callback = {.callback = complete, .user_data = command};
    return started(command, connection->nbd->nbd_aio_pwrite(connection->handle, from, length, offset, callback, 0));
}

int cnbd_trim(struct cnbd *connection, uint64_t length, uint64_t offset, uint64_t token)
{
    struct command *command = take(connection, token);
    if (command == NULL) {
        return -EBUSY;
    }
    nbd_completion_callback callback = {.callback = complete, .user_data = command};
    return started(command, connection->nbd->nbd_aio_trim(connection->handle, length, offset, callback, 0));
}

/* True when another step may find more to do. A step reads one answer, or sends one request,
 * and never waits: an answer that is not there yet costs one recv. */
static bool advance(struct cnbd *connection)
{
    unsigned interest = cnbd_interest(connection);
    unsigned before = connection->finished_count;
    if (interest == CNBD_READABLE) {
        connection->nbd->nbd_aio_notify_read(connection->handle);
        return connection->finished_count != before || cnbd_interest(connection) != interest;
    }
    struct pollfd polled = {.fd = cnbd_descriptor(connection), .events = poll_events(interest)};
    if (interest == 0 || poll(&polled, 1, 0) <= 0) {
        return false;
    }
    notify(connection, polled.revents);
    return true;
}

int cnbd_drive(struct cnbd *connection, struct cnbd_completion *completions, int answers, bool *is_dead_now)
{
    unsigned before = connection->finished_count;
    for (int i = 0; i < CNBD_COMMANDS_MAX && connection->finished_count - before < (unsigned)answers &&
                    advance(connection);
         i++) {
    }
    int count = 0;
    while (connection->finished != NULL) {
        struct command *command = connection->finished;
        connection->finished = command->next;
        if (connection->finished == NULL) {
            connection->finished_end = &connection->finished;
        }
        completions[count++] = (struct cnbd_completion){.token = command->token, .error = command->error};
        give_back(command);
    }
    *is_dead_now = is_dead(connection);
    return count;
}

static int wait_for_one(struct cnbd *connection, int answer, uint64_t timeout, int cancel)
{
    uint64_t deadline = now() + timeout;
    struct cnbd_completion completions[CNBD_COMMANDS_MAX];
    bool has_ended = false;
    while (answer == 0) {
        int count = cnbd_drive(connection, completions, 1, &has_ended);
        if (count > 0) {
            return -completions[0].error;
        }
        answer = has_ended ? -ENOTCONN : step(connection, deadline, cancel);
    }
    return answer;
}

int cnbd_read_and_wait(struct cnbd *connection, void *to, size_t length, uint64_t offset, uint64_t timeout,
                       int cancel)
{
    return wait_for_one(connection, cnbd_read(connection, to, length, offset, 0), timeout, cancel);
}

int cnbd_write_and_wait(struct cnbd *connection, const void *from, size_t length, uint64_t offset,
                        uint64_t timeout, int cancel)
{
    return wait_for_one(connection, cnbd_write(connection, from, length, offset, 0), timeout, cancel);
}
