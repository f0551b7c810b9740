#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

uint64_t clinux_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t clinux_thread_self(void)
{
    return (uint64_t)pthread_self();
}

uint64_t clinux_thread_time(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int clinux_cpu_count(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) < 0 ? -errno : CPU_COUNT(&set);
}

void clinux_yield(void)
{
    sched_yield();
}

void clinux_sleep(uint64_t nanoseconds)
{
    struct timespec left = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
}

int clinux_close(int fd)
{
    /* Linux frees the descriptor even when it answers EINTR (close(2)). */
    return close(fd) < 0 && errno != EINTR ? -errno : 0;
}

int clinux_duplicate(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    return copy >= 0 ? copy : -errno;
}

int clinux_thread_start(const char *name, void *(*body)(void *), void *argument, uint64_t *thread)
{
    /* Signals belong to the host program's own threads, but for those that a thread
     * brings upon itself: blocked, they kill without the handler that reports them. */
    static const int own[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV};
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        sigdelset(&all, own[i]);
    }
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t started;
    int code = pthread_create(&started, NULL, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code != 0) {
        return -code;
    }
    pthread_setname_np(started, name);
    *thread = (uint64_t)started;
    return 0;
}

void clinux_thread_join(uint64_t thread)
{
    pthread_join((pthread_t)thread, NULL);
}

int clinux_thread_pin(uint64_t thread, int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return -pthread_setaffinity_np((pthread_t)thread, sizeof set, &set);
}

struct clinux_mutex {
    pthread_mutex_t mutex;
};

struct clinux_mutex *clinux_mutex_new(void)
{
    struct clinux_mutex *mutex = malloc(sizeof *mutex);
    if (mutex == NULL) {
        abort();
    }
    pthread_mutex_init(&mutex->mutex, NULL);
    return mutex;
}

void clinux_mutex_free(struct clinux_mutex *mutex)
{
    pthread_mutex_destroy(&mutex->mutex);
    free(mutex);
}

void clinux_mutex_lock(struct clinux_mutex *mutex)
{
    pthread_mutex_lock(&mutex->mutex);
}

bool clinux_mutex_try_lock(struct clinux_mutex *mutex)
{
    return pthread_mutex_trylock(&mutex->mutex) == 0;
}

void clinux_mutex_unlock(struct clinux_mutex *mutex)
{
    pthread_mutex_unlock(&mutex->mutex);
}

int clinux_eventfd(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd >= 0 ? fd : -errno;
}

void clinux_eventfd_signal(int fd)
{
    eventfd_write(fd, 1);
}

int clinux_eventfd_wait(int fd, uint64_t nanoseconds)
{
    struct pollfd poll = {.fd = fd, .events = POLLIN};
    struct timespec timeout = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    if (ppoll(&poll, 1, &timeout, NULL) <= 0) {
        return 0;
    }
    eventfd_t value;
    return eventfd_read(fd, &value) == 0;
}

const char *clinux_error_text(int code, char *buffer, size_t size)
{
    return strerror_r(code, buffer, size);
}
