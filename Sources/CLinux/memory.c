#include "clinux.h"

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>

int clinux_map(uint64_t length, uint64_t alignment, void **out)
{
    uint64_t padded = length + alignment;
    char *start = mmap(NULL, padded, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        return -errno;
    }
    char *aligned = (char *)(((uintptr_t)start + alignment - 1) & ~(uintptr_t)(alignment - 1));
    if (aligned > start) {
        munmap(start, (size_t)(aligned - start));
    }
    munmap(aligned + length, (size_t)(start + padded - (aligned + length)));
    madvise(aligned, length, MADV_DONTDUMP);
    madvise(aligned, length, MADV_DONTFORK);
    *out = aligned;
    return 0;
}

int clinux_unmap(void *address, uint64_t length)
{
    return munmap(address, length) < 0 ? -errno : 0;
}

int clinux_release(void *address, uint64_t length)
{
    return madvise(address, length, MADV_DONTNEED) < 0 ? -errno : 0;
}

void clinux_forbid_huge(void *address, uint64_t length)
{
    /* EINVAL: a kernel without huge pages makes none. */
    madvise(address, length, MADV_NOHUGEPAGE);
}

int clinux_collapse(void *address, uint64_t length)
{
    enum { COLLAPSE = 25 }; /* MADV_COLLAPSE, Linux 6.1 */
    return madvise(address, length, COLLAPSE) < 0 ? -errno : 0;
}

int clinux_forbid_merging(void *address, uint64_t length)
{
    /* EINVAL: a kernel without KSM merges nothing. */
    return madvise(address, length, MADV_UNMERGEABLE) < 0 && errno != EINVAL ? -errno : 0;
}

int clinux_punch(void *address, uint64_t length)
{
    return madvise(address, length, MADV_REMOVE) < 0 ? -errno : 0;
}

int clinux_map_again(void *address, uint64_t length, void **out)
{
    /* An old size of 0 leaves the shared mapping where it is and makes another. */
    void *again = mremap(address, 0, length, MREMAP_MAYMOVE);
    if (again == MAP_FAILED) {
        return -errno;
    }
    madvise(again, length, MADV_DONTDUMP);
    madvise(again, length, MADV_DONTFORK);
    *out = again;
    return 0;
}

int clinux_in_core(void *address, uint64_t length, unsigned char *pages)
{
    if (mincore(address, length, pages) < 0) {
        return -errno;
    }
    for (uint64_t i = 0; i < length / 4096; i++) {
        pages[i] &= 1; /* the other bits are reserved */
    }
    return 0;
}

int clinux_populate_write(void *address, uint64_t length)
{
    enum { POPULATE_WRITE = 23 }; /* MADV_POPULATE_WRITE, Linux 5.14 */
    while (madvise(address, length, POPULATE_WRITE) < 0) {
        if (errno != EINTR && errno != EAGAIN) {
            return -errno;
        }
    }
    return 0;
}

/* Other threads may be writing: a page that is no longer blank is seen or missed. */
__attribute__((no_sanitize("thread"))) static bool is_blank(const char *page)
{
    const volatile uint64_t *words = (const volatile uint64_t *)page;
    for (int i = 0; i < 4096 / 8; i++) {
        if (words[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Counts resident pages; with `trim`, those that hold zeros are given back instead. */
static int64_t walk_resident(char *base, uint64_t length, bool trim)
{
    unsigned char states[4096];
    int64_t pages = 0;
    for (uint64_t done = 0; done < length;) {
        uint64_t part = length - done < sizeof states * 4096 ? length - done : sizeof states * 4096;
        if (mincore(base + done, part, states) < 0) {
            return -errno;
        }
        for (uint64_t i = 0; i < part / 4096; i++) {
            char *page = base + done + i * 4096;
            if ((states[i] & 1) != 0 && !(trim && is_blank(page) && madvise(page, 4096, MADV_DONTNEED) == 0)) {
                pages++;
            }
        }
        done += part;
    }
    return pages * 4096;
}

int64_t clinux_resident(void *address, uint64_t length)
{
    return walk_resident(address, length, false);
}

int64_t clinux_trim_blank(void *address, uint64_t length)
{
    return walk_resident(address, length, true);
}
