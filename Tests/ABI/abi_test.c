/*
 * The C ABI from the other side: a C program that knows nothing but the header,
 * loads the library as QEMU does, and pages real memory through it. Compiled as
 * C11 and as C++17 from this one file.
 */
#include "frostline.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MIB ((uint64_t)1 << 20)
#define PAGE ((uint64_t)4096)

static struct {
    uint32_t (*abi_version)(void);
    const char *(*version)(void);
    int (*create)(const frostline_options *, const frostline_host *, frostline_pager **, char *, size_t);
    void (*destroy)(frostline_pager *);
    int (*set)(frostline_pager *, uint32_t, uint64_t, char *, size_t);
    void (*stats)(const frostline_pager *, frostline_stats *);
    int (*attach)(frostline_pager *, const frostline_block_info *, frostline_block **, char *, size_t);
    void (*detach)(frostline_block *);
    void (*discard_begin)(frostline_block *, uint64_t, uint64_t);
    void (*discard_end)(frostline_block *, uint64_t, uint64_t);
    void (*transfer_begin)(frostline_block *, uint64_t, uint64_t);
    void (*transfer_end)(frostline_block *, uint64_t, uint64_t);
    void (*working_set)(const frostline_block *, frostline_working_set *);
    size_t (*hotness_size_max)(const frostline_block *);
    int (*export_hotness)(frostline_block *, void *, size_t, size_t *, char *, size_t);
    int (*import_hotness)(frostline_block *, const void *, size_t, char *, size_t);
} api;

static int passed, failed;

static void check(int holds, const char *what, const char *detail)
{
    holds ? passed++ : failed++;
    if (!holds) {
        printf("FAILED: %s (%s)\n", what, detail);
    }
}

static void load(const char *path)
{
    struct { const char *name; void *slot; } symbols[] = {
        {"frostline_abi_version", &api.abi_version}, {"frostline_version", &api.version},
        {"frostline_pager_create", &api.create},     {"frostline_pager_destroy", &api.destroy},
        {"frostline_pager_set", &api.set},           {"frostline_pager_stats", &api.stats},
        {"frostline_block_attach", &api.attach},     {"frostline_block_detach", &api.detach},
        {"frostline_discard_begin", &api.discard_begin},
        {"frostline_discard_end", &api.discard_end},
        {"frostline_transfer_begin", &api.transfer_begin},
        {"frostline_transfer_end", &api.transfer_end},
        {"frostline_block_working_set", &api.working_set},
        {"frostline_block_hotness_size_max", &api.hotness_size_max},
        {"frostline_block_export_hotness", &api.export_hotness},
        {"frostline_block_import_hotness", &api.import_hotness},
    };
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        printf("cannot load: %s\n", dlerror());
        exit(2);
    }
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        check(symbol != NULL, "the library exports what the header declares", symbols[i].name);
        memcpy(symbols[i].slot, &symbol, sizeof symbol);
    }
}

static frostline_options good_options(void)
{
    frostline_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.tracker = FROSTLINE_TRACKER_NONE;
    options.limit = FROSTLINE_LIMIT_MIN;
    return options;
}

static frostline_host silent_host(void)
{
    frostline_host host;
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    return host;
}

/* A refusal must name the cause: `word` stands for it. */
static void refuses(frostline_options options, int code, const char *word)
{
    frostline_host host = silent_host();
    frostline_pager *pager = (frostline_pager *)1;
    char error[512] = "";
    int answer = api.create(&options, &host, &pager, error, sizeof error);
    check(answer == code && pager == NULL && strstr(error, word) != NULL, word, error);
}

static void refusals(void)
{
    frostline_options options = good_options();
    options.limit = MIB;
    refuses(options, -EINVAL, "32 MiB");
    options = good_options();
    options.idle_age = 1;
    refuses(options, -EINVAL, "1 second");
    options = good_options();
    options.tracker = 99;
    refuses(options, -EINVAL, "tracker 99");
    options = good_options();
    options.mode = 99;
    refuses(options, -EINVAL, "mode 99");
    options = good_options();
    options.stall_budget = 600000;
    refuses(options, -EINVAL, "50 %");
    options = good_options();
    options.struct_size = 8;
    refuses(options, -EINVAL, "struct_size");
    options = good_options();
    options.guard = 99;
    refuses(options, -EINVAL, "guard 99");
    options = good_options();
    options.store = 99;
    refuses(options, -EINVAL, "store 99");
    options = good_options();
    options.read_error = 99;
    refuses(options, -EINVAL, "read-error 99");
    options = good_options();
    options.seal = 99;
    refuses(options, -EINVAL, "seal 99");
    options.seal = FROSTLINE_SEAL_AUTO;
    options.key = "short";
    options.key_length = 5;
    refuses(options, -EINVAL, "at least 16");
    options.seal = FROSTLINE_SEAL_OFF;
    refuses(options, -EINVAL, "takes no key");
    options = good_options();
    options.store_size = MIB;
    refuses(options, -EINVAL, "takes no path");
    options = good_options();
    options.compression = 99;
    refuses(options, -EINVAL, "compression 99");
    options.compression = FROSTLINE_COMPRESSION_LZ4;
    options.compression_level = 1;
    refuses(options, -EINVAL, "lz4 has no levels");
    options.compression = FROSTLINE_COMPRESSION_ZSTD;
    options.compression_level = 20;
    refuses(options, -EINVAL, "1 (quick) to 19");
    options.compression_level = -1;
    refuses(options, -EINVAL, "1 (quick) to 19");
    options = good_options();
    options.incompressible = 99;
    refuses(options, -EINVAL, "incompressible 99");
    options = good_options();
    options.pool_max = MIB;
    refuses(options, -EINVAL, "16 MiB");
    options.pool_max = UINT64_MAX;
    refuses(options, -EINVAL, "no host has");
    options = good_options();
    options.store = FROSTLINE_STORE_FILE;
    options.store_path = "/nonexistent/store";
    options.store_size = 64 * MIB;
    options.compression = FROSTLINE_COMPRESSION_ZSTD;
    refuses(options, -EINVAL, "for store compressed");
    options = good_options();
    options.store = FROSTLINE_STORE_FILE;
    refuses(options, -EINVAL, "needs a path");
    options.store_path = "/nonexistent/store";
    options.store_size = 64 * MIB;
    refuses(options, -ENOENT, "/nonexistent/store");
    options.store_size = MIB;
    refuses(options, -EINVAL, "at least");
    options.store_path = "/dev/null";
    options.store_size = 64 * MIB;
    refuses(options, -EINVAL, "neither a regular file");
}

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static frostline_stats stats_of(frostline_pager *pager)
{
    frostline_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    api.stats(pager, &stats);
    return stats;
}

static uint64_t stamp(uint64_t page, uint64_t word)
{
    return word % 2 ? page : (page + 1) * 0x9e3779b97f4a7c15u + word * 0xbf58476d1ce4e5b9u;
}

/* What is in flight stays, however the limit presses, and leaves once it is done. */
static void transfers(frostline_pager *pager, frostline_block *block, uint64_t *memory)
{
    char error[512] = "";
    uint64_t offset = 64 * MIB + 5, length = 2 * MIB;
    unsigned char present[513];
    api.transfer_begin(block, offset, length);
    for (uint64_t page = 0; page <= length / PAGE; page++) {
        (void)*(volatile uint64_t *)&memory[(64 * MIB / PAGE + page) * 512];
    }
    uint64_t evictions = stats_of(pager).evictions, deadline = now_ms() + 20000;
    api.set(pager, FROSTLINE_SETTING_IDLE_AGE, 1000000000, error, sizeof error);
    while (stats_of(pager).evictions < evictions + 1000 && now_ms() < deadline) {
        /* Others come and go meanwhile. */
        for (uint64_t page = 0; page < 4000; page++) {
            (void)*(volatile uint64_t *)&memory[page * 512];
        }
    }
    check(stats_of(pager).evictions >= evictions + 1000, "others are evicted meanwhile", "evictions");
    mincore((char *)memory + 64 * MIB, length + PAGE, present);
    int gone = 0;
    for (uint64_t page = 0; page <= length / PAGE; page++) {
        gone += !(present[page] & 1);
    }
    check(gone == 0, "what a transfer touches stays in RAM", "");
    api.transfer_end(block, offset, length);
    api.transfer_end(block, offset, length); /* once too often: said, and survived */
    api.set(pager, FROSTLINE_SETTING_IDLE_AGE, 0, error, sizeof error);
}

/* The mode stops eviction, brings everything back, and the working set adds up. */
static void working_sets(frostline_pager *pager, frostline_block *block, uint64_t length)
{
    char error[512] = "";
    check(api.set(pager, FROSTLINE_SETTING_MODE, 7, error, sizeof error) == -EINVAL, "an unknown mode is refused", error);
    check(api.set(pager, FROSTLINE_SETTING_STALL_BUDGET, 5000, error, sizeof error) == 0, "a stall budget is taken", error);
    check(api.set(pager, FROSTLINE_SETTING_VCPUS, 4, error, sizeof error) == 0, "a number of vCPUs is taken", error);
    check(api.set(pager, FROSTLINE_SETTING_VCPUS, 0, error, sizeof error) == -EINVAL, "no vCPUs are refused", error);
    check(api.set(pager, FROSTLINE_SETTING_MODE, FROSTLINE_MODE_DRAIN, error, sizeof error) == 0, "the pager drains", error);
    uint64_t deadline = now_ms() + 60000;
    while (stats_of(pager).evicted_bytes > 0 && now_ms() < deadline) {
    }
    frostline_stats stats = stats_of(pager);
    check(stats.evicted_bytes == 0, "and brings everything back", "evicted_bytes");
    check(stats.mode == FROSTLINE_MODE_DRAIN && stats.stall_budget == 5000, "both are in force", "");
    api.set(pager, FROSTLINE_SETTING_MODE, FROSTLINE_MODE_OBSERVE, error, sizeof error);
    frostline_working_set set;
    memset(&set, 0, sizeof set);
    do {
        set.struct_size = sizeof set;
        api.working_set(block, &set);
    } while ((set.resident_bytes < length - 8 * MIB || set.idle_bytes[1] == 0) && now_ms() < deadline);
    check(strcmp(set.block, "ram") == 0 && set.guest_bytes == length, "a working set is a block's", set.block);
    check(set.resident_bytes >= length - 8 * MIB, "all that was read is resident", "resident_bytes");
    check(set.idle_bytes[1] > 0, "and turns idle when nobody touches it", "idle_bytes");
    for (int i = 1; i < FROSTLINE_IDLE_THRESHOLDS; i++) {
        check(set.idle_bytes[i] <= set.idle_bytes[i - 1], "what is idle for longer is less", "idle_bytes");
    }
    check(stats_of(pager).evicted_bytes == 0, "observing evicts nothing", "evicted_bytes");
}

/* Flips a bit, adds bytes or leaves some out: refused each time, and `word` is in the reason. */
static void refuses_hotness(frostline_block *block, const unsigned char *data, size_t length, const char *word)
{
    char error[512] = "";
    check(api.import_hotness(block, data, length, error, sizeof error) == -EINVAL && strstr(error, word), word, error);
}

/* Hotness goes out as bytes and comes in again; damaged bytes do not. */
static void hotness(frostline_pager *pager, frostline_block *block, uint64_t length)
{
    char error[512] = "";
    size_t size_max = api.hotness_size_max(block), size = 0;
    unsigned char *data = (unsigned char *)malloc(size_max + 1);
    frostline_working_set before, after;
    memset(&before, 0, sizeof before);
    before.struct_size = sizeof before;
    after = before;
    check(size_max < length / PAGE, "hotness takes less than a byte a page", "");
    check(api.export_hotness(block, NULL, 0, &size, error, sizeof error) == -EINVAL, "no place is refused", error);
    check(api.export_hotness(block, data, 16, &size, error, sizeof error) == -ENOSPC && strstr(error, "room for 16"), "too little room is refused", error);
    check(api.export_hotness(block, data, size_max, &size, error, sizeof error) == 0, "hotness is exported", error);
    check(size > 0 && size <= size_max, "in no more bytes than said", "");
    api.working_set(block, &before);
    check(api.import_hotness(block, data, size, error, sizeof error) == 0, "and imported", error);
    api.working_set(block, &after);
    for (int i = 0; i < FROSTLINE_IDLE_THRESHOLDS; i++) {
        uint64_t less = before.idle_bytes[i] < after.idle_bytes[i] ? before.idle_bytes[i] : after.idle_bytes[i];
        uint64_t more = before.idle_bytes[i] ^ after.idle_bytes[i] ^ less;
        check(more - less <= length / 8, "the working set is what it was", "idle_bytes");
    }
    check(stats_of(pager).evicted_bytes == 0, "neither evicts anything", "evicted_bytes");
    data[size / 2] ^= 4;
    refuses_hotness(block, data, size, "checksum");
    data[size / 2] ^= 4;
    refuses_hotness(block, data, size - 1, "checksum");
    refuses_hotness(block, data, 20, "too few");
    data[size] = 0;
    refuses_hotness(block, data, size + 1, "checksum");
    refuses_hotness(block, (const unsigned char *)"a shopping list that is long enough for all", 40, "not hotness data");
    data[8] = 77;
    check(api.import_hotness(block, data, size, error, sizeof error) == -EOPNOTSUPP && strstr(error, "version 77"), "another version is refused", error);
    free(data);
}

static void pages_memory(void)
{
    frostline_options options = good_options();
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    uint64_t length = 96 * MIB;
    uint64_t *memory = (uint64_t *)mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager is created", error);
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.name = "ram";
    info.address = memory;
    info.length = length;
    info.flags = 2;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EINVAL, "an unknown flag is refused", error);
    /* Beyond its struct_size, the struct of an older caller is not read. */
    info.struct_size = (uint32_t)offsetof(frostline_block_info, flags);
    check(api.attach(pager, &info, &block, error, sizeof error) == 0, "a block is attached", error);

    for (uint64_t page = 0; page < length / PAGE; page++) {
        for (uint64_t word = 0; word < 512; word++) {
            memory[page * 512 + word] = stamp(page, word);
        }
    }
    uint64_t deadline = now_ms() + 60000;
    while (stats_of(pager).evicted_bytes < 48 * MIB && now_ms() < deadline) {
    }
    frostline_stats stats = stats_of(pager);
    check(stats.evicted_bytes >= 48 * MIB, "half of the memory is evicted under the limit", "evicted_bytes");
    check(stats.guest_bytes == length, "the block is counted", "guest_bytes");
    check(strcmp(stats.tracker, "none") == 0 && strcmp(stats.guard, "move") == 0, "tracker and guard are named", "");

    transfers(pager, block, memory);
    api.discard_begin(block, 8 * MIB, 4 * MIB);
    madvise((char *)memory + 8 * MIB, 4 * MIB, MADV_DONTNEED);
    api.discard_end(block, 8 * MIB, 4 * MIB);
    int wrong = 0;
    for (uint64_t page = 0; page < length / PAGE; page++) {
        int gone = page >= 8 * MIB / PAGE && page < 12 * MIB / PAGE;
        for (uint64_t word = 0; word < 512; word++) {
            wrong += memory[page * 512 + word] != (gone ? 0 : stamp(page, word));
        }
    }
    check(wrong == 0, "every byte comes back, and discarded ones read as zeros", "");
    check(stats_of(pager).fetches > 0, "by way of the store", "fetches");

    check(api.set(pager, FROSTLINE_SETTING_LIMIT, MIB, error, sizeof error) == -EINVAL, "a bad limit is refused", error);
    check(api.set(pager, FROSTLINE_SETTING_LIMIT, 0, error, sizeof error) == 0, "the limit is lifted", error);
    check(stats_of(pager).limit == 0, "and that is in force", "limit");
    check(api.set(pager, 77, 0, error, sizeof error) == -EINVAL, "an unknown setting is refused", error);
    working_sets(pager, block, length);
    hotness(pager, block, length);
    api.detach(block);
    check(stats_of(pager).evicted_bytes == 0, "a detached block leaves nothing in the store", "evicted_bytes");
    api.destroy(pager);
    munmap(memory, length);
}

static void refuses_one_block_too_many(frostline_pager *pager, frostline_block_info info)
{
    enum { BLOCKS_MAX = 64 }; /* as the header says */
    frostline_block *blocks[BLOCKS_MAX], *another = (frostline_block *)1;
    char error[512] = "";
    char *memory = (char *)mmap(NULL, (BLOCKS_MAX + 1) * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    info.name = "one of many";
    info.page_size = (uint32_t)PAGE;
    info.length = PAGE;
    for (size_t i = 0; i < BLOCKS_MAX; i++) {
        info.address = memory + i * PAGE;
        check(api.attach(pager, &info, &blocks[i], error, sizeof error) == 0, "a block is attached", error);
    }
    info.address = memory + BLOCKS_MAX * PAGE;
    check(api.attach(pager, &info, &another, error, sizeof error) == -EBUSY && another == NULL && strstr(error, "64"), "one block too many is refused", error);
    for (size_t i = 0; i < BLOCKS_MAX; i++) {
        api.detach(blocks[i]);
    }
    munmap(memory, (BLOCKS_MAX + 1) * PAGE);
}

/* Attaches a mapping of the caller's, which must be refused for `reason`. */
static void refuses_memory(frostline_pager *pager, void *address, const char *reason)
{
    frostline_block *block;
    char error[512] = "";
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.name = "odd";
    info.address = address;
    info.length = MIB;
    int answer = api.attach(pager, &info, &block, error, sizeof error);
    check(answer == -EINVAL && strstr(error, reason), reason, error);
}

/* A tracker or guard that does not fit the memory is refused. */
static void refuses_demand(uint32_t tracker, uint32_t guard, int sharing, const char *reason)
{
    frostline_options options = good_options();
    options.tracker = tracker;
    options.guard = guard;
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager with a demand is created", error);
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.address = mmap(NULL, MIB, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
    info.length = MIB;
    int answer = api.attach(pager, &info, &block, error, sizeof error);
    check(answer == -EOPNOTSUPP && strstr(error, reason), reason, error);
    api.destroy(pager);
    munmap(info.address, MIB);
}

/* Pages private memory guarded by write protection, and takes no shared memory. */
static void guards_by_write_protection(void)
{
    frostline_options options = good_options();
    options.guard = FROSTLINE_GUARD_WRITE_PROTECT;
    options.tracker = FROSTLINE_TRACKER_AUTO;
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "guard write-protect is taken", error);
    check(strcmp(stats_of(pager).guard, "write-protect") == 0 && strcmp(stats_of(pager).tracker, "wp") == 0, "and named, with the tracker it needs", "");
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.name = "block";
    info.length = MIB;
    info.address = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(api.attach(pager, &info, &block, error, sizeof error) == -EOPNOTSUPP && strstr(error, "shared memory"), "shared memory is refused then", error);
    munmap(info.address, MIB);
    info.address = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    info.flags = FROSTLINE_BLOCK_MERGEABLE;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EOPNOTSUPP && strstr(error, "use merge=off"), "but not if it may be merged", error);
    info.flags = 0;
    check(api.attach(pager, &info, &block, error, sizeof error) == 0, "private memory is taken", error);
    api.detach(block);
    api.destroy(pager);
    munmap(info.address, MIB);
}

static int automatic_tracker_is(const char *name)
{
    frostline_options options = good_options();
    options.tracker = FROSTLINE_TRACKER_AUTO;
    frostline_host host = silent_host();
    frostline_pager *pager;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a tracker is found", error);
    int is = strcmp(stats_of(pager).tracker, name) == 0;
    api.destroy(pager);
    return is;
}

/* What the statistics call the tracker: at first, with a block, and with another beside it. */
static void names_trackers(uint32_t tracker, const char *empty, int first, const char *with_first, int second, const char *with_both)
{
    const int sharing[2] = {first, second};
    const char *const names[2] = {with_first, with_both};
    frostline_options options = good_options();
    options.tracker = tracker;
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *blocks[2] = {NULL, NULL};
    void *memory[2];
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a tracker is taken", error);
    check(strcmp(stats_of(pager).tracker, empty) == 0, "and named without a block", stats_of(pager).tracker);
    for (int i = 0; i < 2 && sharing[i]; i++) {
        memory[i] = mmap(NULL, MIB, PROT_READ | PROT_WRITE, sharing[i] | MAP_ANONYMOUS, -1, 0);
        frostline_block_info info;
        memset(&info, 0, sizeof info);
        info.struct_size = sizeof info;
        info.page_size = (uint32_t)PAGE;
        info.name = "ram";
        info.address = memory[i];
        info.length = MIB;
        check(api.attach(pager, &info, &blocks[i], error, sizeof error) == 0, "it takes a block", error);
        check(strcmp(stats_of(pager).tracker, names[i]) == 0, names[i], stats_of(pager).tracker);
    }
    for (int i = 0; i < 2 && blocks[i] != NULL; i++) {
        api.detach(blocks[i]);
        munmap(memory[i], MIB);
    }
    api.destroy(pager);
}

static void refuses_blocks(void)
{
    const uint32_t none = FROSTLINE_TRACKER_NONE;
    refuses_demand(none, FROSTLINE_GUARD_MOVE, MAP_SHARED, "guard move was demanded");
    refuses_demand(none, FROSTLINE_GUARD_MINOR, MAP_PRIVATE, "guard minor was demanded");
    refuses_demand(FROSTLINE_TRACKER_ZAP, FROSTLINE_GUARD_AUTO, MAP_PRIVATE, "tracker zap was demanded");
    names_trackers(FROSTLINE_TRACKER_ZAP, "zap", MAP_SHARED, "zap", 0, "");
    names_trackers(FROSTLINE_TRACKER_WP, "wp", MAP_PRIVATE, "wp", MAP_SHARED, "wp");
    names_trackers(FROSTLINE_TRACKER_NONE, "none", MAP_SHARED, "none", 0, "");
    if (automatic_tracker_is("wp")) {
        names_trackers(FROSTLINE_TRACKER_AUTO, "wp", MAP_PRIVATE, "wp", MAP_SHARED, "wp,zap");
        names_trackers(FROSTLINE_TRACKER_AUTO, "wp", MAP_SHARED, "zap", 0, "");
    }
    refuses_demand(FROSTLINE_TRACKER_WP, FROSTLINE_GUARD_WRITE_PROTECT, MAP_SHARED, "shared memory");
    frostline_options guarded = good_options();
    guarded.guard = FROSTLINE_GUARD_WRITE_PROTECT;
    guarded.tracker = FROSTLINE_TRACKER_NONE;
    refuses(guarded, -EOPNOTSUPP, "use tracker wp or auto");
    guarded.guard = FROSTLINE_GUARD_FREEZE;
    refuses(guarded, -EOPNOTSUPP, "use tracker rwp or auto");
    guards_by_write_protection();
    frostline_options options = good_options();
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager is created", error);
    const int both = PROT_READ | PROT_WRITE;
    void *shared = mmap(NULL, MIB, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.name = "shared";
    info.address = shared;
    info.length = MIB;
    check(api.attach(pager, &info, &block, error, sizeof error) == 0, "shared memory is taken", error);
    check(strcmp(stats_of(pager).guard, "minor") == 0, "and guarded by minor faults", stats_of(pager).guard);
    api.detach(block);
    check(strcmp(stats_of(pager).guard, "move") == 0, "which is over when it is detached", stats_of(pager).guard);
    info.page_size = 2 * MIB;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EOPNOTSUPP && strstr(error, "4096"), "huge pages are refused", error);

    int file = open("/proc/self/exe", O_RDONLY);
    int named = open(".", O_RDWR | O_TMPFILE, 0600);
    check(file >= 0 && named >= 0 && ftruncate(named, (off_t)MIB) == 0, "files to map", strerror(errno));
    char *memory = (char *)mmap(NULL, 2 * MIB, both, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(memory, PAGE, PROT_READ);
    refuses_memory(pager, memory, "not readable and writable");
    munmap(memory, PAGE);
    refuses_memory(pager, memory, "not mapped throughout");
    refuses_memory(pager, mmap(memory, MIB, both, MAP_PRIVATE | MAP_FIXED, file, 0), "private mapping of a file");
    refuses_memory(pager, mmap(memory, MIB, both, MAP_SHARED | MAP_FIXED, named, 0), "file with a name");
    mmap(memory, MIB, both, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    mmap(memory + MIB / 2, MIB / 2, both, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    refuses_memory(pager, memory, "do not belong together");
    close(file);
    close(named);
    munmap(memory, 2 * MIB);
    munmap(shared, MIB);
    refuses_one_block_too_many(pager, info);
    api.destroy(pager);
}

int main(int argc, char **argv)
{
    load(argc > 1 ? argv[1] : "./libfrostline.so");
    check(api.abi_version() == FROSTLINE_ABI_VERSION, "the ABI version is the header's", "");
    check(strlen(api.version()) > 0, "the library says its release", "");
    refusals();
    refuses_blocks();
    pages_memory();
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
