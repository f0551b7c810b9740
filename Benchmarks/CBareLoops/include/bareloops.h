/*
 * The floors: the same system calls that Frostline makes, in loops as short as C
 * allows, with nothing of Frostline in them. And the measuring itself, which is
 * the same code for Frostline and for the floors.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef BARELOOPS_H
#define BARELOOPS_H

#include <stdint.h>

/* ---- server.c: a bare fault handler ---- */

/* How the handler waits for the next fault. */
enum bare_wait {
    BARE_POLL = 0,  /* poll, then a non-blocking read */
    BARE_BLOCK = 1, /* a blocking read */
    BARE_SPIN = 2,  /* non-blocking reads without end */
    BARE_YIELD = 3, /* non-blocking reads, sched_yield between them */
    BARE_WAITS = 4
};

/* What the handler places: one ready page, or each page's own contents. */
enum bare_kind {
    BARE_READY = 0,
    BARE_LZ4 = 1,  /* decompressed from `data` */
    BARE_FILE = 2, /* read with pread from `file` */
    BARE_NBD = 3   /* read with nbd_pread from `nbd` */
};

struct bare_nbd;

struct bare_contents {
    int kind;           /* enum bare_kind */
    int file;           /* BARE_FILE: an O_DIRECT descriptor, page i at i * 4096 */
    struct bare_nbd *nbd; /* BARE_NBD: page i at i * 4096 */
    const uint8_t *data;      /* BARE_LZ4: compressed pages */
    const uint64_t *offsets;  /* BARE_LZ4: page i is data[offsets[i]] up to data[offsets[i + 1]] */
    int reads;          /* BARE_FILE, BARE_NBD: pages that are read at once, at most 64; 0: one, by pread */
};

struct bare_server;

/* Serves faults of a registered range from its own thread, on `cpu` or, below
 * zero, anywhere. The page behind the range's last is used to stop it: `length`
 * bytes and one page more must be mapped. */
int bare_server_start(void *base, uint64_t length, const struct bare_contents *contents, int wait,
                      int cpu, struct bare_server **out);
void bare_server_stop(struct bare_server *server);

/* ---- measure.c ---- */

/* Reads the first word of each page of `order`, noting each read's nanoseconds.
 * Returns the sum of the words. */
uint64_t bench_touch(const void *base, const uint32_t *order, int count, uint32_t *nanoseconds);
/* The same from several threads at once, each on its own share, untimed one by
 * one; `elapsed` gets the nanoseconds from the first read to the last. Thread i
 * stays on one of the first `cpus` CPUs, from the last one down, or runs anywhere
 * when that is 0. */
uint64_t bench_touch_threads(const void *base, const uint32_t *order, int count, int threads, int cpus,
                             uint64_t *elapsed);
/* CPU time of the calling thread, nanoseconds. */
uint64_t bench_cpu_time(void);
/* CPU time of all threads of this process, nanoseconds. */
uint64_t bench_process_cpu_time(void);
/* Fills a page with contents of its own that LZ4 halves: runs of noise, and repeats
 * from earlier in the page. The first word tells the page. */
void bench_fill(void *page, uint64_t number);
/* CPUs that are online. */
int bench_cpu_count(void);
/* Keeps the calling thread on a CPU; below zero: lets it run anywhere. */
void bench_pin(int cpu);
/* The same for the thread of this process that has this name; 0 when there is one. */
int bench_pin_named(const char *name, int cpu);

/* ---- move.c, and other bare calls ---- */

/* A userfaultfd with `length` bytes at `target` registered; to be closed. */
int bare_move_open(void *target, uint64_t length);
/* UFFDIO_MOVE; 0 or a negated errno. */
int bare_move(int fd, void *target, void *source, uint64_t length);
/* Registers and unregisters a range; 0 or a negated errno. */
int bare_register(void *base, uint64_t length);

/* PAGEMAP_SCAN of a range, present pages as runs; runs, or a negated errno. */
int bench_scan(void *base, uint64_t length);
/* MADV_NOHUGEPAGE; 0 or a negated errno. */
int bench_forbid_huge(void *base, uint64_t length);
/* MADV_HUGEPAGE, for memory not written yet; 0 or a negated errno. */
int bench_want_huge(void *base, uint64_t length);
/* Maps a memfd, all holes, in the place of private memory; 0 or a negated errno. */
int bench_map_shared(void *base, uint64_t length);
/* Puts shared memory (a memfd) with the same contents in the place of private memory; 0
 * or a negated errno. */
int bench_make_shared(void *base, uint64_t length);
/* The same two with huge pages of hugetlbfs, base and length in whole ones. The descriptor of
 * their file, to be closed, or a negated errno. */
int bench_map_hugetlb(void *base, uint64_t length);
int bench_make_hugetlb(void *base, uint64_t length);
/* Writes, or reads, a word of a page. */
void bench_write(void *base, uint32_t page);
uint64_t bench_read(const void *base, uint32_t page);

void bare_close(int fd);

/* ---- file.c: a file, read and written O_DIRECT ---- */

/* Creates a nameless one with these contents; the descriptor or a negated errno. */
int bare_file_create(const char *path, const void *contents, uint64_t length);
/* Writes them once more, 1 MiB at a time; 0 or a negated errno. */
int bare_file_overwrite(int fd, const void *contents, uint64_t length);
/* Reads the pages of `order` by io_uring, `depth` at once, at most 64; `elapsed` gets the
 * nanoseconds. 0 or a negated errno. */
int bare_file_read_many(int fd, const uint32_t *order, int count, int depth, uint64_t *elapsed);

/* ---- nbd.c: libnbd alone, one connection ---- */

/* -ENOENT: there is no libnbd. -ENOTCONN: no connection. */
int bare_nbd_open(const char *uri, struct bare_nbd **out);
void bare_nbd_close(struct bare_nbd *nbd);
/* Writes `length` bytes to the export's start. */
int bare_nbd_fill(struct bare_nbd *nbd, const void *contents, uint64_t length);
/* Reads one page, and waits for it. */
int bare_nbd_read(struct bare_nbd *nbd, void *page, uint64_t number);
/* Begins to read one page; `done` is set by `bare_nbd_go_on` when it is there. */
int bare_nbd_begin(struct bare_nbd *nbd, void *page, uint64_t number, int *done);
/* Sends and receives what can be without waiting. */
int bare_nbd_go_on(struct bare_nbd *nbd);
/* Reads the pages of `order`, `depth` at once; `elapsed` gets the nanoseconds. */
int bare_nbd_read_many(struct bare_nbd *nbd, const uint32_t *order, int count, int depth, uint64_t *elapsed);

/* ---- umap.c: LLNL's umap, by the path of its library ---- */

/* Maps `length` bytes of an O_DIRECT file, to be read only. -ENOENT: it is no such library. -EIO: it
 * does not map. */
int bare_umap_open(const char *library, int file, uint64_t length, void **base);
/* Whatever is there of it goes. */
void bare_umap_close(const char *library, void *base, uint64_t length);

/* ---- swap.c: swap of our own, for as long as it is measured ---- */

/* Sets /dev/zram0 up as LZ4 swap of `size` bytes. Whatever ends this process but
 * SIGKILL takes it down again. Negated errno: it cannot be had, or is in use. */
int bench_zram_up(uint64_t size);
void bench_zram_down(void);
/* The same with a file of `size` bytes, which it makes and removes. */
int bench_swap_file_up(const char *path, uint64_t size);
void bench_swap_file_down(void);
/* MADV_PAGEOUT. 0 or a negated errno. */
int bench_page_out(void *base, uint64_t length);

/* ---- damon.c: the kernel's own monitor, on memory of this process ---- */

struct bench_damon {
    uint64_t sample_us, aggregate_us, regions_min, regions_max;
};

/* Negated errno: it cannot be had, or is in use. */
int bench_damon_start(const void *base, uint64_t length, const struct bench_damon *attributes);
/* CPU time of its kernel thread so far; 0 or a negated errno. */
int bench_damon_cpu_time(uint64_t *nanoseconds);
/* The sum of its regions' sizes in all aggregations that have ended; 0 or a negated errno. */
int bench_damon_bytes_seen(uint64_t *bytes);
void bench_damon_stop(void);

#endif
