#include "bareloops.h"

#include <ccodec.h>
#include <clinux.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <liburing.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAGE = 4096, MESSAGES = 64, READS_MAX = 64 };

struct bare_server {
    int fd;
    int wait;
    int cpu;
    char *base;
    uint64_t length;
    struct bare_contents contents;
    pthread_t thread;
    void *page;
};

static void copy(struct bare_server *server, uint64_t address, const void *page)
{
    struct uffdio_copy copy = {.dst = address, .src = (uintptr_t)page, .len = PAGE};
    while (ioctl(server->fd, UFFDIO_COPY, &copy) < 0) {
        if (errno != EAGAIN) {
            abort();
        }
        copy.copy = 0;
    }
}

static void place(struct bare_server *server, uint64_t address)
{
    uint64_t number = (address - (uintptr_t)server->base) / PAGE;
    if (number * PAGE < server->length) {
        const struct bare_contents *from = &server->contents;
        if (from->kind == BARE_LZ4) {
            uint64_t start = from->offsets[number];
            if (ccodec_lz4_decompress(from->data + start, (int)(from->offsets[number + 1] - start),
                                      server->page, PAGE) < 0) {
                abort();
            }
        } else if (from->kind == BARE_FILE) {
            if (pread(from->file, server->page, PAGE, (off_t)(number * PAGE)) != PAGE) {
                abort();
            }
        } else if (from->kind == BARE_NBD) {
            if (bare_nbd_read(from->nbd, server->page, number) < 0) {
                abort();
            }
        }
    }
    copy(server, address, server->page);
}

/* Pages on their way, each with a buffer. */
struct reads {
    struct io_uring ring;
    char *buffers;
    uint64_t addresses[READS_MAX];
    int done[READS_MAX];
    bool is_busy[READS_MAX];
};

static void begin(struct bare_server *server, struct reads *reads, uint64_t address)
{
    const struct bare_contents *from = &server->contents;
    uint64_t number = (address - (uintptr_t)server->base) / PAGE;
    int slot = 0;
    while (reads->is_busy[slot]) {
        slot++;
    }
    char *buffer = reads->buffers + slot * PAGE;
    reads->is_busy[slot] = true;
    reads->addresses[slot] = address;
    reads->done[slot] = 0;
    if (from->kind == BARE_NBD) {
        if (bare_nbd_begin(from->nbd, buffer, number, &reads->done[slot]) < 0) {
            abort();
        }
        return;
    }
    struct io_uring_sqe *sqe = io_uring_get_sqe(&reads->ring);
    io_uring_prep_read(sqe, from->file, buffer, PAGE, number * PAGE);
    io_uring_sqe_set_data64(sqe, (uint64_t)slot);
}

/* How many have been placed. */
static int finish(struct bare_server *server, struct reads *reads)
{
    int placed = 0;
    if (server->contents.kind == BARE_NBD) {
        if (bare_nbd_go_on(server->contents.nbd) < 0) {
            abort();
        }
    } else {
        struct io_uring_cqe *cqe;
        while (io_uring_peek_cqe(&reads->ring, &cqe) == 0) {
            if (cqe->res != PAGE) {
                abort();
            }
            reads->done[io_uring_cqe_get_data64(cqe)] = 1;
            io_uring_cqe_seen(&reads->ring, cqe);
        }
    }
    for (int slot = 0; slot < server->contents.reads; slot++) {
        if (reads->is_busy[slot] && reads->done[slot]) {
            copy(server, reads->addresses[slot], reads->buffers + slot * PAGE);
            reads->is_busy[slot] = false;
            placed++;
        }
    }
    return placed;
}

static void *serve_reads(struct bare_server *server, struct reads *reads)
{
    struct uffd_msg messages[MESSAGES];
    int under_way = 0;
    for (bool stop = false; !stop || under_way > 0;) {
        int placed = finish(server, reads);
        under_way -= placed;
        size_t room = (size_t)(server->contents.reads - under_way);
        ssize_t bytes = room > 0 ? read(server->fd, messages, room * sizeof messages[0]) : -1;
        if (bytes < 0) {
            if (placed == 0) {
                sched_yield();
            }
            continue;
        }
        for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
            uint64_t address = messages[i].arg.pagefault.address & ~UINT64_C(4095);
            if (address >= (uintptr_t)server->base + server->length) {
                stop = true;
                copy(server, address, server->page);
            } else {
                begin(server, reads, address);
                under_way++;
            }
        }
        if (io_uring_submit(&reads->ring) < 0) {
            abort();
        }
    }
    return NULL;
}

static void *serve_with_reads(struct bare_server *server)
{
    struct reads *reads = calloc(1, sizeof *reads);
    reads->buffers = aligned_alloc(PAGE, READS_MAX * PAGE);
    if (io_uring_queue_init(READS_MAX, &reads->ring, 0) < 0) {
        abort();
    }
    serve_reads(server, reads);
    io_uring_queue_exit(&reads->ring);
    free(reads->buffers);
    free(reads);
    return NULL;
}

static void *serve(void *argument)
{
    struct bare_server *server = argument;
    struct uffd_msg messages[MESSAGES];
    bench_pin(server->cpu);
    if (server->contents.reads > 0) {
        return serve_with_reads(server);
    }
    for (;;) {
        if (server->wait == BARE_POLL) {
            struct pollfd poll_for = {.fd = server->fd, .events = POLLIN};
            poll(&poll_for, 1, -1);
        }
        ssize_t bytes = read(server->fd, messages, sizeof messages);
        if (bytes < 0) {
            if (server->wait == BARE_YIELD) {
                sched_yield();
            }
            continue;
        }
        bool stop = false;
        for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
            uint64_t address = messages[i].arg.pagefault.address & ~UINT64_C(4095);
            place(server, address);
            stop |= address >= (uintptr_t)server->base + server->length;
        }
        if (stop) {
            return NULL;
        }
    }
}

int bare_server_start(void *base, uint64_t length, const struct bare_contents *contents, int wait,
                      int cpu, struct bare_server **out)
{
    struct bare_server *server = calloc(1, sizeof *server);
    *server = (struct bare_server){
        .wait = wait, .cpu = cpu, .base = base, .length = length, .contents = *contents};
    server->page = aligned_alloc(PAGE, PAGE);
    memset(server->page, 1, PAGE);
    server->fd = clinux_uffd_open();
    uint64_t offered;
    int answer = server->fd < 0 ? server->fd : clinux_uffd_api(server->fd, 0, &offered);
    if (answer == 0) {
        answer = clinux_uffd_register(server->fd, (uintptr_t)base, length + PAGE,
                                      CLINUX_UFFD_REGISTER_MISSING);
    }
    if (answer == 0 && wait == BARE_BLOCK) {
        fcntl(server->fd, F_SETFL, 0);
    }
    if (answer == 0) {
        answer = -pthread_create(&server->thread, NULL, serve, server);
    }
    if (answer < 0) {
        if (server->fd >= 0) {
            close(server->fd);
        }
        free(server->page);
        free(server);
        return answer;
    }
    *out = server;
    return 0;
}

void bare_server_stop(struct bare_server *server)
{
    char *last = server->base + server->length;
    clinux_release(last, PAGE);
    (void)*(volatile char *)last;
    pthread_join(server->thread, NULL);
    close(server->fd);
    free(server->page);
    free(server);
}
