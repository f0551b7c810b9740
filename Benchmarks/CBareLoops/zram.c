#include "bareloops.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/swap.h>
#include <unistd.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define DEVICE "/dev/zram0"
#define SETTINGS "/sys/block/zram0/"

/* Set only while the device is ours. */
static volatile sig_atomic_t is_up;

static int write_setting(const char *path, const char *value)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int answer = write(fd, value, strlen(value)) < 0 ? -errno : 0;
    close(fd);
    return answer;
}

/* Only calls that a signal handler may make. */
void bench_zram_down(void)
{
    if (!is_up) {
        return;
    }
    is_up = 0;
    swapoff(DEVICE);
    write_setting(SETTINGS "reset", "1");
}

static void down_and_die(int number)
{
    bench_zram_down();
    signal(number, SIG_DFL);
    raise(number);
}

static void take_down_on_any_end(void)
{
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE, SIGSEGV,
                               SIGBUS, SIGILL, SIGTRAP, SIGABRT, SIGFPE};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        signal(ends[i], down_and_die);
    }
    atexit(bench_zram_down);
}

/* A swap area's header, as mkswap writes it: include/linux/swap.h. */
static int write_header(uint64_t size)
{
    static unsigned char page[4096];
    uint32_t version = 1, last_page = (uint32_t)(size / sizeof page) - 1;
    memset(page, 0, sizeof page);
    memcpy(page + 1024, &version, sizeof version);
    memcpy(page + 1028, &last_page, sizeof last_page);
    memcpy(page + sizeof page - 10, "SWAPSPACE2", 10);
    int fd = open(DEVICE, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    int answer = write(fd, page, sizeof page) == sizeof page ? 0 : -EIO;
    if (fsync(fd) < 0 && answer == 0) {
        answer = -errno;
    }
    close(fd);
    return answer;
}

static bool is_unused(void)
{
    char state = 0;
    int fd = open(SETTINGS "initstate", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool unused = read(fd, &state, 1) == 1 && state == '0';
    close(fd);
    return unused;
}

int bench_zram_up(uint64_t size)
{
    if (access(DEVICE, W_OK) < 0) {
        return -errno;
    }
    if (!is_unused()) {
        return -EBUSY;
    }
    take_down_on_any_end();
    is_up = 1;
    char bytes[32];
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)size);
    int answer = write_setting(SETTINGS "comp_algorithm", "lz4");
    if (answer == 0) {
        answer = write_setting(SETTINGS "disksize", bytes);
    }
    if (answer == 0) {
        answer = write_header(size);
    }
    if (answer == 0 && swapon(DEVICE, 0) < 0) {
        answer = -errno;
    }
    if (answer < 0) {
        bench_zram_down();
    }
    return answer;
}

int bench_page_out(void *base, uint64_t length)
{
    return madvise(base, length, MADV_PAGEOUT) < 0 ? -errno : 0;
}
