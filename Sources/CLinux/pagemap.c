#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define IOCTL_PAGEMAP_SCAN 0xc0606610ul

struct scan {
    uint64_t size, flags, start, end, walk_end, vector, vector_length, max_pages;
    uint64_t inverted, mask, anyof, return_mask;
};
_Static_assert(sizeof(struct scan) == 96, "struct pm_scan_arg is 96 bytes");

int clinux_pagemap_open(void)
{
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

int clinux_pagemap_scan(int fd, uint64_t start, uint64_t end, uint64_t anyof,
                        uint64_t return_mask, struct clinux_page_region *regions,
                        int capacity, uint64_t *walk_end)
{
    struct scan argument = {
        .size = sizeof argument,
        .start = start,
        .end = end,
        .vector = (uint64_t)(uintptr_t)regions,
        .vector_length = (uint64_t)capacity,
        .anyof = anyof,
        .return_mask = return_mask,
    };
    int count;
    do {
        count = ioctl(fd, IOCTL_PAGEMAP_SCAN, &argument);
    } while (count < 0 && errno == EINTR);
    *walk_end = argument.walk_end;
    return count < 0 ? -errno : count;
}

int clinux_pagemap_shares(int fd, uint64_t address)
{
    const uint64_t present = UINT64_C(1) << 63, exclusive = UINT64_C(1) << 56;
    uint64_t entry;

    if (pread(fd, &entry, sizeof entry, (off_t)(address / 4096 * sizeof entry)) != sizeof entry) {
        return 0;
    }
    return (entry & present) && !(entry & exclusive);
}
