#include "bareloops.h"

#include <clinux.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MAX = 16 };

static uint64_t first_word(const void *base, uint32_t page)
{
    return *(const volatile uint64_t *)((const char *)base + (uint64_t)page * PAGE);
}

uint64_t bench_touch(const void *base, const uint32_t *order, int count, uint32_t *nanoseconds)
{
    uint64_t sum = 0;
    for (int i = 0; i < count; i++) {
        uint64_t start = clinux_now();
        sum += first_word(base, order[i]);
        nanoseconds[i] = (uint32_t)(clinux_now() - start);
    }
    return sum;
}

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t bench_cpu_time(void)
{
    return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

uint64_t bench_process_cpu_time(void)
{
    return read_clock(CLOCK_PROCESS_CPUTIME_ID);
}

struct share {
    const void *base;
    const uint32_t *order;
    int count;
    int cpu;
    pthread_barrier_t *barrier;
    uint64_t sum;
    uint64_t start;
    uint64_t end;
};

static void *touch_share(void *argument)
{
    struct share *share = argument;
    bench_pin(share->cpu);
    pthread_barrier_wait(share->barrier);
    share->start = clinux_now();
    for (int i = 0; i < share->count; i++) {
        share->sum += first_word(share->base, share->order[i]);
    }
    share->end = clinux_now();
    return NULL;
}

uint64_t bench_touch_threads(const void *base, const uint32_t *order, int count, int threads, int cpus,
                             uint64_t *elapsed)
{
    pthread_t started[THREADS_MAX];
    struct share shares[THREADS_MAX];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    int part = count / threads;
    for (int i = 0; i < threads; i++) {
        shares[i] = (struct share){
            .base = base,
            .order = order + i * part,
            .count = i + 1 == threads ? count - i * part : part,
            .cpu = cpus > 0 ? cpus - 1 - i % cpus : -1,
            .barrier = &barrier,
        };
        if (pthread_create(&started[i], NULL, touch_share, &shares[i]) != 0) {
            abort();
        }
    }
    uint64_t start = UINT64_MAX, end = 0, sum = 0;
    for (int i = 0; i < threads; i++) {
        pthread_join(started[i], NULL);
        sum += shares[i].sum;
        start = shares[i].start < start ? shares[i].start : start;
        end = shares[i].end > end ? shares[i].end : end;
    }
    pthread_barrier_destroy(&barrier);
    *elapsed = end - start;
    return sum;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = *state += UINT64_C(0x9e3779b97f4a7c15);
    mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
    return mixed ^ (mixed >> 31);
}

void bench_fill(void *page, uint64_t number)
{
    enum { REPEAT_MIN = 6, REPEAT_SPAN = 32, NOISE_MIN = 4, NOISE_SPAN = 20 };
    unsigned char *bytes = page;
    uint64_t state = number * 1000003;
    memcpy(bytes, &number, sizeof number);
    size_t done = sizeof number;
    while (done < PAGE) {
        size_t noise = NOISE_MIN + next_random(&state) % NOISE_SPAN;
        for (size_t i = 0; i < noise && done < PAGE; i++) {
            bytes[done++] = (unsigned char)next_random(&state);
        }
        size_t repeat = REPEAT_MIN + next_random(&state) % REPEAT_SPAN;
        size_t from = next_random(&state) % done;
        for (size_t i = 0; i < repeat && done < PAGE; i++) {
            bytes[done++] = bytes[from++];
        }
    }
}

static void pin(pid_t thread, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    if (cpu >= 0) {
        CPU_SET(cpu, &set);
    } else {
        memset(&set, 0xff, sizeof set);
    }
    sched_setaffinity(thread, sizeof set, &set);
}

int bench_cpu_count(void)
{
    return (int)sysconf(_SC_NPROCESSORS_ONLN);
}

void bench_pin(int cpu)
{
    pin(0, cpu);
}

int bench_pin_named(const char *name, int cpu)
{
    DIR *tasks = opendir("/proc/self/task");
    int answer = -ESRCH;
    for (struct dirent *task; tasks != NULL && (task = readdir(tasks)) != NULL;) {
        char path[300], comm[32] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            continue;
        }
        ssize_t length = read(fd, comm, sizeof comm - 1);
        close(fd);
        if (length > 0 && (size_t)length == strlen(name) + 1 && strncmp(comm, name, strlen(name)) == 0) {
            pin(atoi(task->d_name), cpu);
            answer = 0;
        }
    }
    if (tasks != NULL) {
        closedir(tasks);
    }
    return answer;
}
