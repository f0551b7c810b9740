#include "bareloops.h"

#include <clinux.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of Debian 12. */
#define IOCTL_MOVE 0xc028aa05ul
struct move {
    uint64_t to, from, length, mode;
    int64_t done;
};

enum { PRESENT = 1 << 3 }; /* PAGE_IS_PRESENT */

static int open_registered(void *base, uint64_t length)
{
    int fd = clinux_uffd_open();
    if (fd < 0) {
        return fd;
    }
    uint64_t offered;
    int answer = clinux_uffd_api(fd, CLINUX_UFFD_FEATURE_MOVE, &offered);
    if (answer == 0) {
        answer = clinux_uffd_register(fd, (uintptr_t)base, length, CLINUX_UFFD_REGISTER_MISSING);
    }
    if (answer < 0) {
        close(fd);
        return answer;
    }
    return fd;
}

int bare_move_open(void *target, uint64_t length)
{
    return open_registered(target, length);
}

int bare_move(int fd, void *target, void *source, uint64_t length)
{
    struct move move = {(uintptr_t)target, (uintptr_t)source, length, 0, 0};
    return ioctl(fd, IOCTL_MOVE, &move) < 0 ? -errno : 0;
}

int bench_scan(void *base, uint64_t length)
{
    static struct clinux_page_region runs[1024];
    int fd = clinux_pagemap_open();
    int total = 0;
    for (uint64_t address = (uintptr_t)base, end = address + length; fd >= 0 && address < end;) {
        int count = clinux_pagemap_scan(fd, address, end, PRESENT, PRESENT, runs, 1024, &address);
        if (count < 0) {
            total = count;
            break;
        }
        total += count;
    }
    close(fd);
    return fd < 0 ? fd : total;
}

int bench_forbid_huge(void *base, uint64_t length)
{
    return madvise(base, length, MADV_NOHUGEPAGE) < 0 ? -errno : 0;
}

int bench_want_huge(void *base, uint64_t length)
{
    return madvise(base, length, MADV_HUGEPAGE) < 0 ? -errno : 0;
}

static int make_shared(void *base, uint64_t length, bool keeps_contents)
{
    int fd = (int)syscall(SYS_memfd_create, "bench", 1u /* MFD_CLOEXEC */);
    if (fd < 0) {
        return -errno;
    }
    int answer = 0;
    if (ftruncate(fd, (off_t)length) < 0 ||
        (keeps_contents && pwrite(fd, base, length, 0) != (ssize_t)length) ||
        mmap(base, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
        answer = -errno;
    }
    close(fd);
    return answer;
}

int bench_make_shared(void *base, uint64_t length)
{
    return make_shared(base, length, true);
}

int bench_map_shared(void *base, uint64_t length)
{
    return make_shared(base, length, false);
}

/* Huge pages of hugetlbfs cannot be written by pwrite: by a mapping of their own. */
static int copy_to_hugetlb(int fd, const void *contents, uint64_t length)
{
    void *other = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (other == MAP_FAILED) {
        return -errno;
    }
    memcpy(other, contents, length);
    munmap(other, length);
    return 0;
}

static int make_hugetlb(void *base, uint64_t length, bool keeps_contents)
{
    enum { HUGETLB_2MB = 4 | 21 << 26 }; /* MFD_HUGETLB, MFD_HUGE_2MB */
    int fd = (int)syscall(SYS_memfd_create, "bench", 1u /* MFD_CLOEXEC */ | HUGETLB_2MB);
    if (fd < 0) {
        return -errno;
    }
    int answer = ftruncate(fd, (off_t)length) < 0 ? -errno : 0;
    if (answer == 0 && keeps_contents) {
        answer = copy_to_hugetlb(fd, base, length);
    }
    if (answer == 0 && mmap(base, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
                           MAP_FAILED) {
        answer = -errno;
    }
    if (answer < 0) {
        close(fd);
        return answer;
    }
    return fd;
}

int bench_map_hugetlb(void *base, uint64_t length)
{
    return make_hugetlb(base, length, false);
}

int bench_make_hugetlb(void *base, uint64_t length)
{
    return make_hugetlb(base, length, true);
}

void bench_write(void *base, uint32_t page)
{
    ((volatile uint64_t *)base)[(uint64_t)page * 512 + 1] = page;
}

uint64_t bench_read(const void *base, uint32_t page)
{
    return ((const volatile uint64_t *)base)[(uint64_t)page * 512 + 1];
}

void bare_close(int fd)
{
    close(fd);
}

int bare_register(void *base, uint64_t length)
{
    int fd = open_registered(base, length);
    if (fd < 0) {
        return fd;
    }
    int answer = clinux_uffd_unregister(fd, (uintptr_t)base, length);
    close(fd);
    return answer;
}
