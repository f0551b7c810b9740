#include "bareloops.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
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
/* Of the swap file, which is ours while it is not empty. */
static char file[PATH_MAX];

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

void bench_swap_file_down(void)
{
    if (file[0] != '\0') {
        swapoff(file);
        unlink(file);
        file[0] = '\0';
    }
}

static void all_down(void)
{
    bench_zram_down();
    bench_swap_file_down();
}

static void down_and_die(int number)
{
    all_down();
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
    atexit(all_down);
}

/* A swap area's header, as mkswap writes it: include/linux/swap.h. */
static int write_header(const char *path, uint64_t size)
{
    static unsigned char page[4096];
    uint32_t version = 1, last_page = (uint32_t)(size / sizeof page) - 1;
    memset(page, 0, sizeof page);
    memcpy(page + 1024, &version, sizeof version);
    memcpy(page + 1028, &last_page, sizeof last_page);
    memcpy(page + sizeof page - 10, "SWAPSPACE2", 10);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
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
        answer = write_header(DEVICE, size);
    }
    if (answer == 0 && swapon(DEVICE, 0) < 0) {
        answer = -errno;
    }
    if (answer < 0) {
        bench_zram_down();
    }
    return answer;
}

/* Without holes: the kernel takes no other. */
static int allocate(const char *path, uint64_t size)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int answer = -posix_fallocate(fd, 0, (off_t)size);
    close(fd);
    return answer;
}

int bench_swap_file_up(const char *path, uint64_t size)
{
    if (strlen(path) >= sizeof file) {
        return -ENAMETOOLONG;
    }
    take_down_on_any_end();
    int answer = allocate(path, size);
    if (answer == 0) {
        answer = write_header(path, size);
    }
    if (answer == 0 && swapon(path, 0) < 0) {
        answer = -errno;
    }
    if (answer == 0) {
        strcpy(file, path);
    } else {
        unlink(path);
    }
    return answer;
}

int bench_page_out(void *base, uint64_t length)
{
    return madvise(base, length, MADV_PAGEOUT) < 0 ? -errno : 0;
}
