/* Blocks: real memory is paged, discarded, transferred, looked at; what cannot be, is refused. */
#include "abi_test.h"

#include <fcntl.h>
#include <unistd.h>

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
    check(api.set(pager, FROSTLINE_SETTING_RUNNING, 0, error, sizeof error) == 0, "a VM may stand still", error);
    check(api.set(pager, FROSTLINE_SETTING_RUNNING, 2, error, sizeof error) == -EINVAL, "or run, and nothing else", error);
    check(api.set(pager, FROSTLINE_SETTING_RUNNING, 1, error, sizeof error) == 0, "and go on", error);
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
    check(stats_of(pager).eviction_pace == 0, "for the budget neither", "eviction_pace");
}

/* Waiting shows as lost time, and the pace follows it. */
static void stall_budget(frostline_pager *pager, uint64_t *memory, uint64_t length)
{
    char error[512] = "";
    frostline_stats stats = stats_of(pager);
    check(stats.stall_share == 0 && stats.eviction_pace == 0, "nothing is lost or taken without a budget", "stall_share");
    api.set(pager, FROSTLINE_SETTING_VCPUS, 4, error, sizeof error);
    api.set(pager, FROSTLINE_SETTING_STALL_BUDGET, 500000, error, sizeof error);
    uint64_t deadline = now_ms() + 60000;
    do {
        for (uint64_t page = 0; page < length / PAGE; page++) {
            (void)*(volatile uint64_t *)&memory[page * 512];
        }
        stats = stats_of(pager);
    } while (stats.stall_share == 0 && now_ms() < deadline);
    check(stats.stall_share > 0 && stats.stall_share <= 4 * 500000, "waiting is counted", "stall_share");
    while (stats_of(pager).eviction_pace == 0 && now_ms() < deadline) {
    }
    check(stats_of(pager).eviction_pace > 0, "below the budget pages leave", "eviction_pace");
    api.set(pager, FROSTLINE_SETTING_STALL_BUDGET, 1, error, sizeof error);
    while (stats_of(pager).eviction_pace > 0 && now_ms() < deadline) {
    }
    stats = stats_of(pager);
    check(stats.eviction_pace == 0 && stats.stall_share > 1, "above it none do", "eviction_pace");
    check((stats.held_up_accesses > 0) == (stats.held_up_time > 0), "who was held up has waited", "held_up_time");
    api.set(pager, FROSTLINE_SETTING_STALL_BUDGET, 0, error, sizeof error);
    while (stats_of(pager).stall_share > 0 && now_ms() < deadline) {
    }
    check(stats_of(pager).stall_share == 0, "without a budget nobody counts", "stall_share");
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
    frostline_block_info info = block_info("ram", memory, length);
    info.flags = 2;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EINVAL, "an unknown flag is refused", error);
    info.flags = 0;
    info.reserved = 3;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EINVAL && strstr(error, "frostline_block_info.reserved is 3"), "a reserved field is refused", error);
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
    stall_budget(pager, memory, length);
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
    frostline_block_info info = block_info("odd", address, MIB);
    int answer = api.attach(pager, &info, &block, error, sizeof error);
    check(answer == -EINVAL && strstr(error, reason), reason, error);
}

/* Huge pages of hugetlbfs, which none need be set aside for. */
static void refuses_huge_pages(frostline_pager *pager)
{
    const int both = PROT_READ | PROT_WRITE, shared = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE;
    void *ordinary = mmap(NULL, 4 * MIB, both, shared, -1, 0);
    uint64_t aligned = ((uint64_t)(uintptr_t)ordinary + 2 * MIB - 1) / (2 * MIB) * (2 * MIB);
    frostline_block *block;
    frostline_block_info info;
    char error[512] = "";

    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)(2 * MIB);
    info.name = "huge";
    info.address = (void *)(uintptr_t)aligned;
    info.length = 2 * MIB;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EINVAL && strstr(error, "not hugetlbfs"),
          "ordinary memory is not taken for huge pages", error);
    munmap(ordinary, 4 * MIB);
    info.address = mmap(NULL, 2 * MIB, both, shared | MAP_HUGETLB | 21 << MAP_HUGE_SHIFT, -1, 0);
    if (info.address == MAP_FAILED) {
        return; /* a kernel without hugetlbfs */
    }
    if (strcmp(stats_of(pager).tracker, "rwp") != 0) {
        check(api.attach(pager, &info, &block, error, sizeof error) == -EOPNOTSUPP && strstr(error, "Linux 7.3"),
              "huge pages are refused without read-write protection", error);
    }
    info.page_size = (uint32_t)PAGE;
    check(api.attach(pager, &info, &block, error, sizeof error) == -EINVAL && strstr(error, "2097152"),
          "huge pages are not taken for ordinary memory", error);
    munmap(info.address, 2 * MIB);
}

static void refuses_blocks(void)
{
    frostline_options options = good_options();
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager is created", error);
    const int both = PROT_READ | PROT_WRITE;
    void *shared = mmap(NULL, MIB, both, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    frostline_block_info info = block_info("shared", shared, MIB);
    check(api.attach(pager, &info, &block, error, sizeof error) == 0, "shared memory is taken", error);
    check(strcmp(stats_of(pager).guard, "minor") == 0, "and guarded by minor faults", stats_of(pager).guard);
    api.detach(block);
    check(strcmp(stats_of(pager).guard, "move") == 0, "which is over when it is detached", stats_of(pager).guard);
    info.page_size = (uint32_t)(16 * PAGE);
    check(api.attach(pager, &info, &block, error, sizeof error) == -EOPNOTSUPP && strstr(error, "4096"),
          "other page sizes are refused", error);
    refuses_huge_pages(pager);
    info.page_size = (uint32_t)PAGE;

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

void test_blocks(void)
{
    refuses_blocks();
    pages_memory();
}
