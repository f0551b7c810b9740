/*
 * A real service and its client: redis-server with a data set of records, and requests for
 * keys by Zipf's law, one after the other, each reply checked and timed.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "payload.h"

#define SERVER_LOADER "/service/lib/ld-linux-x86-64.so.2"
#define SERVER_SOCKET "/redis.sock"
#define CONNECT_TRIES 300
#define VALUE_BYTES 2000
#define BATCH_KEYS 32
#define PIPELINE 32
#define REPLY_BYTES_MAX (VALUE_BYTES + 64)
#define LATENCIES_MAX (1u << 21)
/* A prime larger than any number of keys: scatters popular keys over the data set. */
#define SCATTER UINT64_C(2147483647)

static struct {
    int socket;
    uint64_t keys;
    uint64_t asked; /* keys that are asked for; the others only take memory */
    int latest;     /* the newest keys are asked for most, as in YCSB's workload D */
    double *cumulated; /* probability of a key up to this rank */
    double exponent;
    float *latencies; /* seconds */
} service = {.socket = -1};

static uint64_t next(uint64_t *random)
{
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    return *random;
}

/*
 * Records in JSON, the same for the same key. LZ4 makes pages of them 2.6 times smaller, as
 * it does with text.
 */
static void make_value(char *value, uint64_t key)
{
    static const char *const cities[] = {"Lisbon", "Nairobi", "Osaka", "Quito",
                                         "Riga",   "Sydney",  "Toronto", "Utrecht"};
    uint64_t random = (key + 1) * UINT64_C(0x9e3779b97f4a7c15);
    size_t at = 0;
    char record[160];

    while (at < VALUE_BYTES) {
        uint64_t draw = next(&random);
        int length = snprintf(record, sizeof record,
                              "{\"id\":%llu,\"order\":\"%016llx\",\"city\":\"%s\",\"amount\":%u,"
                              "\"status\":\"%s\"},",
                              (unsigned long long)key, (unsigned long long)draw, cities[draw & 7],
                              (unsigned)(draw >> 3 & 0xffff), draw & 1024 ? "delivered" : "open");
        size_t part = (size_t)length < VALUE_BYTES - at ? (size_t)length : VALUE_BYTES - at;

        memcpy(value + at, record, part);
        at += part;
    }
}

static int send_all(const char *bytes, size_t count)
{
    while (count) {
        ssize_t done = write(service.socket, bytes, count);

        if (done <= 0) {
            return -1;
        }
        bytes += done;
        count -= (size_t)done;
    }
    return 0;
}

static int receive_all(char *bytes, size_t count)
{
    while (count) {
        ssize_t done = read(service.socket, bytes, count);

        if (done <= 0) {
            return -1;
        }
        bytes += done;
        count -= (size_t)done;
    }
    return 0;
}

static int start_server(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = SERVER_SOCKET};

    if (!fork()) {
        execl(SERVER_LOADER, "ld", "--library-path", "/service/lib", "/service/redis-server",
              "--port", "0", "--unixsocket", SERVER_SOCKET, "--save", "", "--logfile", "/redis.log",
              "--loglevel", "warning", (char *)NULL);
        _exit(127);
    }
    service.socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < CONNECT_TRIES; i++) {
        if (!connect(service.socket, (struct sockaddr *)&address, sizeof address)) {
            return 0;
        }
        usleep(100000);
    }
    return -1;
}

static int store_all(void)
{
    char value[VALUE_BYTES], reply[5 * BATCH_KEYS];
    char *batch = malloc(BATCH_KEYS * (size_t)REPLY_BYTES_MAX);

    for (uint64_t key = 0; key < service.keys;) {
        size_t at = 0;
        int count = 0;

        for (; count < BATCH_KEYS && key < service.keys; count++, key++) {
            at += (size_t)sprintf(batch + at, "*3\r\n$3\r\nSET\r\n$10\r\n%010llu\r\n$%d\r\n",
                                  (unsigned long long)key, VALUE_BYTES);
            make_value(value, key);
            memcpy(batch + at, value, VALUE_BYTES);
            at += VALUE_BYTES;
            memcpy(batch + at, "\r\n", 2);
            at += 2;
        }
        if (send_all(batch, at) || receive_all(reply, 5 * (size_t)count) ||
            memcmp(reply, "+OK\r\n", 5)) {
            free(batch);
            return -1;
        }
    }
    free(batch);
    return 0;
}

static size_t put_request(char *request, uint64_t key)
{
    return (size_t)sprintf(request, "GET %010llu\r\n", (unsigned long long)key);
}

/* 0: the next reply is the key's value. 1: it is not. -1: there is none. */
static int next_reply(uint64_t key, int whole)
{
    static char reply[REPLY_BYTES_MAX];
    char head[32], expected[VALUE_BYTES];
    size_t head_length = (size_t)snprintf(head, sizeof head, "$%d\r\n", VALUE_BYTES);
    int length;

    if (receive_all(reply, head_length + VALUE_BYTES + 2)) {
        return -1;
    }
    if (whole) {
        make_value(expected, key);
        return !!memcmp(reply + head_length, expected, VALUE_BYTES);
    }
    length = snprintf(head, sizeof head, "{\"id\":%llu,", (unsigned long long)key);
    return !!memcmp(reply + head_length, head, (size_t)length);
}

static int get(uint64_t key, int whole)
{
    char request[32];

    if (send_all(request, put_request(request, key))) {
        return -1;
    }
    return next_reply(key, whole);
}

void command_serve(int mebibytes, int latest, int percent)
{
    service.latest = latest;
    service.keys = ((uint64_t)mebibytes << 20) / (VALUE_BYTES + 96);
    service.asked = service.keys * (uint64_t)percent / 100;
    service.latencies = mmap(NULL, LATENCIES_MAX * sizeof(float), PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    service.cumulated = malloc(service.keys * sizeof(double));
    if (start_server() || store_all()) {
        say("error: redis-server does not answer");
        return;
    }
    say("serving %llu", (unsigned long long)service.keys);
}

/* Zipf: the chance of rank r is proportional to 1 / r^exponent. */
static void set_exponent(double exponent)
{
    double sum = 0, part = 0;

    if (service.exponent == exponent) {
        return;
    }
    for (uint64_t rank = 1; rank <= service.asked; rank++) {
        sum += pow((double)rank, -exponent);
    }
    for (uint64_t rank = 1; rank <= service.asked; rank++) {
        part += pow((double)rank, -exponent);
        service.cumulated[rank - 1] = part / sum;
    }
    service.exponent = exponent;
}

static uint64_t draw_key(uint64_t *random)
{
    double chance = (double)(next(random) >> 11) / (double)(UINT64_C(1) << 53);
    uint64_t low = 0, high = service.asked - 1;

    while (low < high) {
        uint64_t middle = (low + high) / 2;

        if (service.cumulated[middle] < chance) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return service.latest ? service.keys - 1 - low : low * SCATTER % service.keys;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static uint64_t client = UINT64_C(0x2545f4914f6cdd1d);

/* So many thousands of requests, many under way at a time: the past of a service, quickly. */
void command_warm(int thousands, int hundredths)
{
    uint64_t keys[PIPELINE], mismatches = 0;
    char requests[32 * PIPELINE];
    double begin = now();

    if (!service.keys) {
        say("error: warm wants a service");
        return;
    }
    set_exponent(hundredths / 100.0);
    for (int64_t left = (int64_t)thousands * 1000; left > 0; left -= PIPELINE) {
        size_t length = 0;

        for (int i = 0; i < PIPELINE; i++) {
            keys[i] = draw_key(&client);
            length += put_request(requests + length, keys[i]);
        }
        if (send_all(requests, length)) {
            say("error: redis-server is gone");
            return;
        }
        for (int i = 0; i < PIPELINE; i++) {
            mismatches += next_reply(keys[i], 0) != 0;
        }
    }
    say("warmed seconds %.0f mismatches %llu", now() - begin, (unsigned long long)mismatches);
}

/* Requests for so many seconds, by Zipf's law with exponent `hundredths` / 100. */
void command_request(int seconds, int hundredths)
{
    uint64_t count = 0, mismatches = 0;
    double begin, end;

    if (!service.keys) {
        say("error: request wants a service");
        return;
    }
    set_exponent(hundredths / 100.0);
    begin = now();
    for (double before = begin; before < begin + seconds && count < LATENCIES_MAX; count++) {
        int answer = get(draw_key(&client), 0);
        double after = now();

        if (answer < 0) {
            say("error: redis-server is gone");
            return;
        }
        mismatches += (uint64_t)answer;
        service.latencies[count] = (float)(after - before);
        before = after;
    }
    end = now();
    qsort(service.latencies, count, sizeof(float), by_size);
    say("requested %llu per-1000s %llu p50 %.0f p99 %.0f p999 %.0f max %.0f mismatches %llu",
        (unsigned long long)count, (unsigned long long)((double)count * 1000 / (end - begin)),
        (double)service.latencies[count / 2] * 1e6, (double)service.latencies[count * 99 / 100] * 1e6,
        (double)service.latencies[count * 999 / 1000] * 1e6,
        (double)service.latencies[count - 1] * 1e6, (unsigned long long)mismatches);
}

/* Asks for so many keys, evenly spread, and compares every byte. */
void command_recall(int count)
{
    uint64_t mismatches = 0;

    for (int i = 0; i < count; i++) {
        mismatches += get(service.keys * (uint64_t)i / (uint64_t)count, 1) != 0;
    }
    say("recalled %d mismatches %llu", count, (unsigned long long)mismatches);
}
