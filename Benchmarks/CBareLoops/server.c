#include "bareloops.h"

#include <ccodec.h>
#include <clinux.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { PAGE = 4096, MESSAGES = 64 };

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
    struct uffdio_copy copy = {.dst = address, .src = (uintptr_t)server->page, .len = PAGE};
    while (ioctl(server->fd, UFFDIO_COPY, &copy) < 0) {
        if (errno != EAGAIN) {
            abort();
        }
        copy.copy = 0;
    }
}

static void *serve(void *argument)
{
    struct bare_server *server = argument;
    struct uffd_msg messages[MESSAGES];
    bench_pin(server->cpu);
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
