/*
 * Linux as Frostline uses it, one .c file per family of calls. Every function
 * returns a value at or above zero, or a negated errno, and retries EINTR.
 * The userfaultfd and pagemap constants are here, not taken from the system's
 * headers, because those of Debian 12 predate MOVE, PAGEMAP_SCAN and RWP.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CLINUX_H
#define CLINUX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- userfaultfd.c: include/uapi/linux/userfaultfd.h of Linux 7.3 ---- */

/* Written so that Swift sees them: its importer leaves out macros with casts. */
#define CLINUX_UFFD_FEATURE_WP (1ull << 0)
#define CLINUX_UFFD_FEATURE_MISSING_HUGETLBFS (1ull << 4)
#define CLINUX_UFFD_FEATURE_MISSING_SHMEM (1ull << 5)
#define CLINUX_UFFD_FEATURE_MINOR_HUGETLBFS (1ull << 9)
#define CLINUX_UFFD_FEATURE_MINOR_SHMEM (1ull << 10)
#define CLINUX_UFFD_FEATURE_POISON (1ull << 14)
#define CLINUX_UFFD_FEATURE_WP_ASYNC (1ull << 15)
#define CLINUX_UFFD_FEATURE_MOVE (1ull << 16)
#define CLINUX_UFFD_FEATURE_RWP (1ull << 17)
#define CLINUX_UFFD_FEATURE_RWP_ASYNC (1ull << 18)

#define CLINUX_UFFD_REGISTER_MISSING (1ull << 0)
#define CLINUX_UFFD_REGISTER_WP (1ull << 1)
#define CLINUX_UFFD_REGISTER_MINOR (1ull << 2)
#define CLINUX_UFFD_REGISTER_RWP (1ull << 3)

#define CLINUX_UFFD_FAULT_WRITE (1ull << 0)
#define CLINUX_UFFD_FAULT_WP (1ull << 1)
#define CLINUX_UFFD_FAULT_MINOR (1ull << 2)
#define CLINUX_UFFD_FAULT_RWP (1ull << 3)

struct clinux_fault {
    uint64_t address;
    uint64_t flags;
};

/* A userfaultfd that handles kernel-mode faults too, non-blocking. The system
 * call first (CAP_SYS_PTRACE or vm.unprivileged_userfaultfd), then the device
 * node (its file permissions). */
int clinux_uffd_open(void);
int clinux_uffd_api(int fd, uint64_t features, uint64_t *offered);
int clinux_uffd_register(int fd, uint64_t start, uint64_t length, uint64_t mode);
int clinux_uffd_unregister(int fd, uint64_t start, uint64_t length);
int clinux_uffd_wake(int fd, uint64_t start, uint64_t length);
int clinux_uffd_copy(int fd, uint64_t to, uint64_t from, uint64_t length);
int clinux_uffd_zero(int fd, uint64_t start, uint64_t length);
int clinux_uffd_poison(int fd, uint64_t start, uint64_t length);
/* Maps pages that are in the file already; -EFAULT when they are not. */
int clinux_uffd_continue(int fd, uint64_t start, uint64_t length);
/* `moved` is set to the bytes moved before the call ended, also on failure. */
int clinux_uffd_move(int fd, uint64_t to, uint64_t from, uint64_t length, uint64_t *moved);
int clinux_uffd_arm(int fd, uint64_t start, uint64_t length);
int clinux_uffd_disarm(int fd, uint64_t start, uint64_t length, bool wake);
/* The same against writes only. */
int clinux_uffd_arm_writes(int fd, uint64_t start, uint64_t length);
int clinux_uffd_disarm_writes(int fd, uint64_t start, uint64_t length, bool wake);
/* Switches features on and off; Linux 7.3 knows RWP_ASYNC only. */
int clinux_uffd_set_mode(int fd, uint64_t enable, uint64_t disable);
/* Reads page-fault messages; returns how many, 0 when none is waiting. */
int clinux_uffd_read(int fd, struct clinux_fault *faults, int capacity);

/* ---- pagemap.c: include/uapi/linux/fs.h ---- */

#define CLINUX_PAGE_IS_WRITTEN (1ull << 1)
#define CLINUX_PAGE_IS_PRESENT (1ull << 3)
#define CLINUX_PAGE_IS_SWAPPED (1ull << 4)
#define CLINUX_PAGE_IS_HUGE (1ull << 6)
#define CLINUX_PAGE_IS_ACCESSED (1ull << 9)

struct clinux_page_region {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

int clinux_pagemap_open(void);
/* Returns the number of regions written; `walk_end` is where the walk stopped. */
int clinux_pagemap_scan(int fd, uint64_t start, uint64_t end, uint64_t anyof,
                        uint64_t return_mask, struct clinux_page_region *regions,
                        int capacity, uint64_t *walk_end);

/* 1: a page is present at the address, and mapped elsewhere as well. */
int clinux_pagemap_shares(int fd, uint64_t address);

/* ---- memory.c ---- */

/* Anonymous, private, not reserved, aligned to `alignment` (a power of two), left out of core dumps. */
int clinux_map(uint64_t length, uint64_t alignment, void **out);
int clinux_unmap(void *address, uint64_t length);
/* MADV_DONTNEED: the memory goes back to the host and reads as zeros. */
int clinux_release(void *address, uint64_t length);
/* MADV_NOHUGEPAGE, which is a matter of cost: no answer. */
void clinux_forbid_huge(void *address, uint64_t length);
/* MADV_COLLAPSE: pages become huge pages now. */
int clinux_collapse(void *address, uint64_t length);
int clinux_forbid_merging(void *address, uint64_t length);
/* MADV_REMOVE: pages leave a shared mapping's file, and every mapping of it. */
int clinux_punch(void *address, uint64_t length);
/* Another mapping of the shared memory at `address`, left out of core dumps and forks. */
int clinux_map_again(void *address, uint64_t length, void **out);
/* The same for huge pages of hugetlbfs, which mremap does not map again: by a descriptor of
 * their file that is open in this process. -ENOENT: there is none. */
int clinux_map_huge_again(void *address, uint64_t length, void **out);
/* Makes pages writable in a mapping of shared memory that no userfaultfd watches. -EFAULT:
 * hugetlbfs has no free page for a hole; an access would be a SIGBUS. */
int clinux_populate_write(void *address, uint64_t length);
/* Sets a byte for each page: 1 when it is in RAM, mapped or not (mincore). */
int clinux_in_core(void *address, uint64_t length, unsigned char *pages);
/* What a range is: one of enum clinux_memory. */
int clinux_memory_kind(uint64_t start, uint64_t length);
enum clinux_memory {
    CLINUX_MEMORY_PRIVATE_ANONYMOUS,
    CLINUX_MEMORY_SHARED,       /* one shmem file without a name: memfd, shared anonymous memory */
    CLINUX_MEMORY_SHARED_HUGE,  /* the same in huge pages of 2 MiB (hugetlbfs) */
    CLINUX_MEMORY_UNMAPPED,     /* not mapped throughout */
    CLINUX_MEMORY_NOT_WRITABLE, /* not readable and writable throughout */
    CLINUX_MEMORY_PRIVATE_FILE, /* a private mapping of a file, or of huge pages */
    CLINUX_MEMORY_OTHER_FILE,   /* a shared mapping of a file that has a name, or of other huge pages */
    CLINUX_MEMORY_MIXED         /* several kinds, or a file not in one piece */
};
/* Bytes of the range that are resident, by mincore. */
int64_t clinux_resident(void *address, uint64_t length);
/* Gives back the pages that hold only zeros; bytes that stay resident. */
int64_t clinux_trim_blank(void *address, uint64_t length);

/* ---- thread.c ---- */

uint64_t clinux_now(void);
/* What tells the calling thread from others; not 0. */
uint64_t clinux_thread_self(void);
/* CPU time of the calling thread, nanoseconds. */
uint64_t clinux_thread_time(void);
void clinux_yield(void);
/* CPUs that the calling thread may run on, or a negated errno. */
int clinux_cpu_count(void);
void clinux_sleep(uint64_t nanoseconds);
int clinux_close(int fd);
/* Another descriptor of the same, closed on exec. */
int clinux_duplicate(int fd);
/* Starts a thread with all signals blocked but those of its own faults; `thread` receives what join wants. */
int clinux_thread_start(const char *name, void *(*body)(void *), void *argument, uint64_t *thread);
void clinux_thread_join(uint64_t thread);
int clinux_thread_pin(uint64_t thread, int cpu);
/* A mutex on the heap: its address must not change. Aborts when there is no memory. */
struct clinux_mutex;
struct clinux_mutex *clinux_mutex_new(void);
void clinux_mutex_free(struct clinux_mutex *mutex);
void clinux_mutex_lock(struct clinux_mutex *mutex);
bool clinux_mutex_try_lock(struct clinux_mutex *mutex);
void clinux_mutex_unlock(struct clinux_mutex *mutex);
int clinux_eventfd(void);
void clinux_eventfd_signal(int fd);
/* Waits until signalled or for `nanoseconds`; clears the signal. 1: signalled. */
int clinux_eventfd_wait(int fd, uint64_t nanoseconds);

/* ---- poller.c: an epoll ---- */

enum { CLINUX_POLL_READABLE = 0x1, CLINUX_POLL_WRITABLE = 0x4, CLINUX_POLL_HANGUP = 0x2000 };

int clinux_poller_open(void);
/* `events`: CLINUX_POLL_* or'ed; the end of a connection is always one. */
int clinux_poller_add(int poller, int fd, uint32_t events);
int clinux_poller_change(int poller, int fd, uint32_t events);
int clinux_poller_remove(int poller, int fd);
/* Waits until something is ready, or for `nanoseconds`. True: the other end of something has gone. */
bool clinux_poller_wait(int poller, uint64_t nanoseconds);

/* ---- ring.c: one io_uring over one open file ---- */

struct clinux_ring;

struct clinux_completion {
    uint64_t token;
    int32_t result; /* bytes, or a negated errno */
    uint32_t reserved;
};

int clinux_ring_open(int file, unsigned depth, struct clinux_ring **out);
void clinux_ring_close(struct clinux_ring *ring);
/* The descriptor to poll for completions. */
int clinux_ring_descriptor(const struct clinux_ring *ring);
/* Most transfers will be to or from this memory: it is registered with the first one, where the
 * kernel allows it, and pinned from then on until it is let go, which may be when none is under
 * way. Another offer takes the place of the last; one of 0 bytes lets go for good. */
void clinux_ring_offer(struct clinux_ring *ring, uint64_t start, uint64_t length);
void clinux_ring_let_go(struct clinux_ring *ring);
/* Line a transfer up, to be begun by `clinux_ring_start`. -EBUSY: as many as there may be wait already. */
int clinux_ring_read(struct clinux_ring *ring, void *to, uint32_t length, uint64_t offset, uint64_t token);
int clinux_ring_write(struct clinux_ring *ring, const void *from, uint32_t length, uint64_t offset,
                      uint64_t token);
/* Begins what is lined up, all in one system call. False: the kernel is short of memory for some of
 * it, which stay lined up. */
bool clinux_ring_start(struct clinux_ring *ring);
/* Takes finished transfers; with `wait`, begins what is lined up, and blocks until there is at least one. */
int clinux_ring_reap(struct clinux_ring *ring, struct clinux_completion *completions, int capacity, bool wait);

/* ---- file.c ---- */

/* Opens (creating it, mode 0600) a file or block device for O_DIRECT, and locks
 * it against every other open; a block device also against every other use. `size` of a block device is checked, a file's is set, and
 * with `preallocate` set aside. */
int clinux_store_file_open(const char *path, uint64_t size, bool preallocate);
/* What memory, offset and length of O_DIRECT transfers must be multiples of. */
int clinux_store_block_size(int fd);
/* Frees the space of a range: TRIM of a block device, a hole in a file. */
int clinux_store_discard(int fd, uint64_t offset, uint64_t length);
/* Has a file's system find room for a range of it now, and not as it is written. -EOPNOTSUPP: a
 * block device, or a file system that cannot. */
int clinux_store_allocate(int fd, uint64_t offset, uint64_t length);
enum {
    CLINUX_STORE_LOCKED = -10001,    /* another process has it open */
    CLINUX_STORE_TOO_SMALL = -10002, /* the block device is smaller than `size` */
    CLINUX_STORE_NOT_EMPTY = -10003, /* a regular file with contents not ours to overwrite */
    CLINUX_STORE_KIND = -10004,      /* neither a regular file nor a block device */
    CLINUX_STORE_NO_DIRECT = -10005, /* the file system has no O_DIRECT */
    CLINUX_STORE_IN_USE = -10006     /* the block device is mounted, or another's */
};

/* ---- loop.c: a GMainContext of our own that dispatches when a descriptor is readable ---- */

struct clinux_loop;

int clinux_loop_new(uint64_t (*dispatch)(void *), void *argument, struct clinux_loop **out);
void *clinux_loop_watch(struct clinux_loop *loop, int descriptor);
void clinux_loop_unwatch(struct clinux_loop *loop, void *watch);
/* Runs `dispatch` whenever a watched descriptor is readable, or as many ns have passed as it answered,
 * until stopped. */
void clinux_loop_run(struct clinux_loop *loop);
void clinux_loop_stop(struct clinux_loop *loop);
void clinux_loop_free(struct clinux_loop *loop);

const char *clinux_error_text(int code, char *buffer, size_t size);

#endif
