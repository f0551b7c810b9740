#include "bareloops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KDAMONDS "/sys/kernel/mm/damon/admin/kdamonds/"
#define CONTEXT "0/contexts/0/"
#define SCHEME CONTEXT "schemes/0/"

enum { TEXT_MAX = 64, PATH_LENGTH_MAX = 200 };

static int write_text(const char *name, const char *text)
{
    char path[PATH_LENGTH_MAX];
    snprintf(path, sizeof path, KDAMONDS "%s", name);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int answer = write(fd, text, strlen(text)) < 0 ? -errno : 0;
    close(fd);
    return answer;
}

static int write_number(const char *name, uint64_t number)
{
    char text[TEXT_MAX];
    snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    return write_text(name, text);
}

static int read_text(const char *path, char text[TEXT_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    ssize_t length = read(fd, text, TEXT_MAX - 1);
    int answer = length < 0 ? -errno : 0;
    close(fd);
    text[length < 0 ? 0 : length] = 0;
    return answer;
}

static int read_number(const char *name, uint64_t *number)
{
    char path[PATH_LENGTH_MAX], text[TEXT_MAX];
    snprintf(path, sizeof path, KDAMONDS "%s", name);
    int answer = read_text(path, text);
    *number = strtoull(text, NULL, 10);
    return answer;
}

static int is_on(void)
{
    char text[TEXT_MAX];
    return read_text(KDAMONDS "0/state", text) == 0 && strncmp(text, "on", 2) == 0;
}

/* One context on this process's memory, all its regions seen by a scheme that only counts. */
static int set_up(const void *base, uint64_t length, const struct bench_damon *attributes)
{
    uint64_t start = (uintptr_t)base;
    int answer = write_number("nr_kdamonds", 1);
    answer = answer ? answer : write_number("0/contexts/nr_contexts", 1);
    answer = answer ? answer : write_text(CONTEXT "operations", "fvaddr");
    answer = answer ? answer : write_number(CONTEXT "targets/nr_targets", 1);
    answer = answer ? answer : write_number(CONTEXT "targets/0/pid_target", (uint64_t)getpid());
    answer = answer ? answer : write_number(CONTEXT "targets/0/regions/nr_regions", 1);
    answer = answer ? answer : write_number(CONTEXT "targets/0/regions/0/start", start);
    answer = answer ? answer : write_number(CONTEXT "targets/0/regions/0/end", start + length);
    answer = answer ? answer : write_number(CONTEXT "monitoring_attrs/intervals/sample_us", attributes->sample_us);
    answer = answer ? answer : write_number(CONTEXT "monitoring_attrs/intervals/aggr_us", attributes->aggregate_us);
    answer = answer ? answer : write_number(CONTEXT "monitoring_attrs/nr_regions/max", attributes->regions_max);
    answer = answer ? answer : write_number(CONTEXT "monitoring_attrs/nr_regions/min", attributes->regions_min);
    answer = answer ? answer : write_number(CONTEXT "schemes/nr_schemes", 1);
    answer = answer ? answer : write_text(SCHEME "action", "stat");
    static const char *const ranges[] = {"sz", "nr_accesses", "age"};
    for (size_t i = 0; i < sizeof ranges / sizeof ranges[0] && answer == 0; i++) {
        char name[TEXT_MAX];
        snprintf(name, sizeof name, SCHEME "access_pattern/%s/max", ranges[i]);
        answer = write_number(name, UINT32_MAX);
    }
    return answer;
}

int bench_damon_start(const void *base, uint64_t length, const struct bench_damon *attributes)
{
    if (access(KDAMONDS "nr_kdamonds", W_OK) < 0) {
        return -errno;
    }
    if (is_on()) {
        return -EBUSY;
    }
    int answer = set_up(base, length, attributes);
    answer = answer ? answer : write_text("0/state", "on");
    if (answer < 0) {
        bench_damon_stop();
    }
    return answer;
}

int bench_damon_cpu_time(uint64_t *nanoseconds)
{
    char path[PATH_LENGTH_MAX], text[TEXT_MAX];
    uint64_t pid;
    int answer = read_number("0/pid", &pid);
    if (answer == 0) {
        /* Its first number: time on a CPU. */
        snprintf(path, sizeof path, "/proc/%llu/schedstat", (unsigned long long)pid);
        answer = read_text(path, text);
        *nanoseconds = strtoull(text, NULL, 10);
    }
    return answer;
}

int bench_damon_bytes_seen(uint64_t *bytes)
{
    int answer = write_text("0/state", "update_schemes_stats");
    return answer ? answer : read_number(SCHEME "stats/sz_tried", bytes);
}

void bench_damon_stop(void)
{
    if (is_on()) {
        write_text("0/state", "off");
    }
    write_number("nr_kdamonds", 0);
}
