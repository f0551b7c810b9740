/*
 * Devices that read and write guest memory behind the vCPUs' backs: a disk by DMA, and
 * two network cards that are wired to each other.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "payload.h"

#define CHUNK_BYTES (256u << 10)
#define FRAME_BYTES 1514u
#define FRAME_PAYLOAD ((FRAME_BYTES - sizeof(struct ether_header)) / 8 * 8)
#define ETHERTYPE_EXPERIMENT 0x88b5 /* IEEE: local experimental */
#define BURST_FRAMES 32
#define RECEIVE_TIMEOUT_MILLISECONDS 5000

/*
 * Both buffers stay mapped through all rounds, so between two rounds they are as cold as
 * the pager likes, and then a device touches them, not a vCPU.
 */
struct disk_job {
    int fd;
    uint64_t bytes;
    uint8_t *out, *in;
};

static int transfer(const struct disk_job *job, int writing)
{
    for (uint64_t at = 0; at < job->bytes; at += CHUNK_BYTES) {
        ssize_t done = writing ? pwrite(job->fd, job->out + at, CHUNK_BYTES, (off_t)at)
                               : pread(job->fd, job->in + at, CHUNK_BYTES, (off_t)at);

        if (done != CHUNK_BYTES) {
            say("error: blk %s at %llu: %s", writing ? "write" : "read", (unsigned long long)at,
                done < 0 ? strerror(errno) : "short");
            return -1;
        }
    }
    return 0;
}

static uint64_t disk_round(const struct disk_job *job, int round)
{
    uint64_t mismatches = 0;

    for (uint64_t at = 0; at < job->bytes; at += PAGE_BYTES) {
        pattern_fill(job->out + at, PAGE_BYTES, (uint64_t)round << 40 | at);
    }
    if (transfer(job, 1) || fsync(job->fd)) {
        return 1;
    }
    /* Buffered reads come from the disk, too, and not from the page cache. */
    posix_fadvise(job->fd, 0, 0, POSIX_FADV_DONTNEED);
    if (transfer(job, 0)) {
        return 1;
    }
    for (uint64_t at = 0; at < job->bytes; at += PAGE_BYTES) {
        mismatches += memcmp(job->out + at, job->in + at, PAGE_BYTES) != 0;
    }
    return mismatches;
}

void command_blk(const char *device, int mebibytes, int rounds, int direct)
{
    static const char *const modules[] = {"virtio_blk", NULL};
    struct disk_job job = {.bytes = (uint64_t)mebibytes << 20};
    uint64_t mismatches = 0;

    if (load_modules(modules)) {
        return;
    }
    job.fd = open(device, O_RDWR | (direct ? O_DIRECT : 0));
    job.out = mmap(NULL, job.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    job.in = mmap(NULL, job.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (job.fd < 0 || job.out == MAP_FAILED || job.in == MAP_FAILED) {
        say("error: blk cannot open %s or get memory: %s", device, strerror(errno));
        return;
    }
    for (int round = 1; round <= rounds; round++) {
        mismatches += disk_round(&job, round);
        say("blk round %d of %d mismatches %llu", round, rounds, (unsigned long long)mismatches);
    }
    say("blk done bytes %llu mismatches %llu", (unsigned long long)job.bytes * (unsigned)rounds,
        (unsigned long long)mismatches);
    munmap(job.out, job.bytes);
    munmap(job.in, job.bytes);
    close(job.fd);
}

void command_balloon(void)
{
    static const char *const modules[] = {"virtio_balloon", NULL};

    if (!load_modules(modules)) {
        say("balloon ready");
    }
}

/* A raw socket on the interface, which is brought up. */
static int open_interface(const char *name)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(ETHERTYPE_EXPERIMENT)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(ETHERTYPE_EXPERIMENT));
    struct ifreq request = {0};

    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", name);
    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request)) {
        return -1;
    }
    request.ifr_flags |= IFF_UP | IFF_PROMISC;
    address.sll_ifindex = (int)if_nametoindex(name);
    if (ioctl(fd, SIOCSIFFLAGS, &request) ||
        bind(fd, (struct sockaddr *)&address, sizeof address)) {
        return -1;
    }
    return fd;
}

static void build_frame(uint8_t *frame, uint64_t number)
{
    struct ether_header *header = (struct ether_header *)frame;

    memset(header->ether_dhost, 0xff, sizeof header->ether_dhost);
    memset(header->ether_shost, 0x02, sizeof header->ether_shost);
    header->ether_type = htons(ETHERTYPE_EXPERIMENT);
    pattern_fill(frame + sizeof *header, FRAME_PAYLOAD, number);
}

/* 0: frame `number` came, whole; 1: something else; -1: nothing. */
static int receive_frame(int fd, uint64_t number)
{
    uint8_t frame[FRAME_BYTES], expected[FRAME_BYTES];
    size_t bytes = sizeof(struct ether_header) + FRAME_PAYLOAD;
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    if (poll(&poll_fd, 1, RECEIVE_TIMEOUT_MILLISECONDS) != 1) {
        return -1;
    }
    if (recv(fd, frame, sizeof frame, 0) != (ssize_t)bytes) {
        return 1;
    }
    build_frame(expected, number);
    return memcmp(frame, expected, bytes) != 0;
}

void command_net(const char *from, const char *to, int frames, int pause)
{
    static const char *const modules[] = {"failover", "net_failover", "virtio_net", NULL};
    uint64_t received = 0, mismatches = 0;
    uint8_t frame[FRAME_BYTES];
    int out, in;

    if (load_modules(modules)) {
        return;
    }
    out = open_interface(from);
    in = open_interface(to);
    if (out < 0 || in < 0) {
        say("error: net cannot open %s and %s: %s", from, to, strerror(errno));
        return;
    }
    for (int sent = 0; sent < frames; sent += BURST_FRAMES) {
        for (int i = 0; i < BURST_FRAMES; i++) {
            build_frame(frame, (uint64_t)(sent + i));
            if (send(out, frame, sizeof(struct ether_header) + FRAME_PAYLOAD, 0) < 0) {
                say("error: net send: %s", strerror(errno));
            }
        }
        for (int i = 0; i < BURST_FRAMES; i++) {
            int answer = receive_frame(in, (uint64_t)(sent + i));

            if (answer < 0) {
                say("error: net frame %d did not come", sent + i);
                break;
            }
            received++;
            mismatches += (uint64_t)answer;
        }
        usleep((useconds_t)pause * 1000);
    }
    say("net done frames %llu mismatches %llu", (unsigned long long)received,
        (unsigned long long)mismatches);
    close(out);
    close(in);
}
