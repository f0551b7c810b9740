/* Tiers: lists of them, what is refused about them, their statistics. */
#include "abi_test.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static frostline_tier tier_of(uint32_t kind, const char *path, uint64_t max_bytes)
{
    frostline_tier tier;
    memset(&tier, 0, sizeof tier);
    tier.struct_size = sizeof tier;
    tier.kind = kind;
    tier.path = path;
    tier.max_bytes = max_bytes;
    return tier;
}

static frostline_options options_with(const frostline_tier *tiers, uint32_t count)
{
    frostline_options options = good_options();
    options.tiers = tiers;
    options.tier_count = count;
    return options;
}

static void refuses_tier(frostline_tier tier, int code, const char *word)
{
    refuses(options_with(&tier, 1), code, word);
}

/* The second of two tiers: it is the one that must be named. */
static void refuses_second(frostline_tier second, int code, const char *word)
{
    frostline_tier tiers[2] = {tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0), second};
    refuses(options_with(tiers, 2), code, word);
}

static void refuses_lists(void)
{
    frostline_tier tiers[8];
    for (int i = 0; i < 8; i++) {
        tiers[i] = tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 616 * MIB);
    }
    refuses(options_with(tiers, 8), -EINVAL, "8 tiers");
    refuses(options_with(NULL, 1), -EINVAL, "1 tiers were announced");
    frostline_options both = options_with(tiers, 1);
    both.store = FROSTLINE_STORE_FILE;
    refuses(both, -EINVAL, "a store as well");
    both = options_with(tiers, 1);
    both.pool_max = 64 * MIB;
    refuses(both, -EINVAL, "say them of a tier");
    both = options_with(tiers, 1);
    both.seal = FROSTLINE_SEAL_OFF;
    refuses(both, -EINVAL, "say it of each tier");
    both.seal = FROSTLINE_SEAL_ON;
    refuses(both, -EINVAL, "say it of each tier");
    tiers[1] = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    refuses(options_with(tiers, 2), -EINVAL, "tier 1 (compressed): compressed memory comes first");
    refuses_second(tiers[1], -EINVAL, "there is one already");
    /* As it was before it had mirrors. */
    tiers[0].struct_size = offsetof(frostline_tier, mirror);
    refuses(options_with(tiers, 1), -ENOENT, "cannot open the store /nonexistent/store");
    tiers[0].struct_size--;
    refuses(options_with(tiers, 1), -EINVAL, "struct_size");
    tiers[0].struct_size = 8;
    refuses(options_with(tiers, 1), -EINVAL, "struct_size");
}

static void refuses_values(void)
{
    frostline_tier tier = tier_of(99, NULL, 0);
    refuses_second(tier, -EINVAL, "tier 1 is of kind 99");
    refuses_tier(tier_of(FROSTLINE_TIER_COMPRESSED, "/tmp/x", 0), -EINVAL, "tier 0 (compressed): memory has no path");
    refuses_tier(tier_of(FROSTLINE_TIER_COMPRESSED, NULL, PAGE), -EINVAL, "16 MiB");
    refuses_second(tier_of(FROSTLINE_TIER_FILE, NULL, 616 * MIB), -EINVAL, "tier 1 (file): it needs a path");
    refuses_second(tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", MIB), -EINVAL, "2 MiB");
    refuses_second(tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 616 * MIB), -ENOENT, "tier 1 (file): cannot open the store /nonexistent/store");
    refuses_second(tier_of(FROSTLINE_TIER_NBD, NULL, 0), -EINVAL, "tier 1 (nbd): it needs a URI");
    tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    tier.compression_level = 3;
    refuses_tier(tier, -EINVAL, "lz4 has no levels");
    tier.compression = 9;
    refuses_tier(tier, -EINVAL, "compression 9");
    tier.compression = FROSTLINE_COMPRESSION_ZSTD;
    tier.compression_level = 77;
    refuses_tier(tier, -EINVAL, "1 (quick) to 19");
    tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    tier.incompressible = 9;
    refuses_tier(tier, -EINVAL, "incompressible 9 is unknown");
    tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    tier.seal = 9;
    refuses_tier(tier, -EINVAL, "seal 9");
    tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    tier.write_bytes_max = 1;
    refuses_tier(tier, -EINVAL, "no rate limits");
    tier = tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 616 * MIB);
    tier.connections = 2;
    refuses_tier(tier, -EINVAL, "for kind nbd");
    tier = tier_of(FROSTLINE_TIER_NBD, "nbd://localhost/export", 0);
    tier.connections = 99;
    refuses_tier(tier, -EINVAL, "99 connections");
    refuses_tier(tier_of(FROSTLINE_TIER_NBD, "http://localhost/", 0), -EINVAL, "uri is not one of nbd:");
    refuses_tier(tier_of(FROSTLINE_TIER_NBD, "nbd+unix:///?socket=/nonexistent/socket", 0), -ENOTCONN,
                 "tier 0 (nbd): cannot use nbd+unix:///?socket=/nonexistent/socket: connect: No such file");
    tier = tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 616 * MIB);
    tier.incompressible = FROSTLINE_INCOMPRESSIBLE_KEEP_RAW;
    refuses_tier(tier, -EINVAL, "kind compressed only");
    tier = tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 64 * MIB);
    tier.preallocate = 2;
    refuses_tier(tier, -EINVAL, "preallocate is 2");
    tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    tier.preallocate = 1;
    refuses_tier(tier, -EINVAL, "preallocation is for kind file");
    tier = tier_of(FROSTLINE_TIER_FILE, "/nonexistent/store", 64 * MIB);
    tier.reserved = 9;
    refuses_second(tier, -EINVAL, "tier 1: frostline_tier.reserved is 9");
    frostline_tier mirror = tier;
    tier.reserved = 0;
    tier.mirror = &mirror;
    refuses_tier(tier, -EINVAL, "tier 0: frostline_tier.reserved is 9");
    tier = tier_of(FROSTLINE_TIER_FILE, ".build/abi/preallocated", UINT64_C(1) << 43);
    tier.preallocate = 1;
    refuses_tier(tier, -ENOSPC, "to preallocate; lower the size");
}

static frostline_tier_stats tier_stats_of(frostline_pager *pager, uint32_t index)
{
    frostline_tier_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    api.tier_stats(pager, index, &stats);
    return stats;
}

/* Adds a tier, and removes the one that has the pages. */
static void comes_and_goes(frostline_pager *pager, uint64_t *memory, uint64_t length)
{
    char path[] = ".build/abi/another-store", error[512] = "";
    uint32_t index = 99;
    frostline_tier tier = tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0);
    check(api.add_tier(pager, &tier, &index, error, sizeof error) == -EINVAL && strstr(error, "compressed memory already"), "a second compressed tier is refused", error);
    tier = tier_of(FROSTLINE_TIER_FILE, path, MIB);
    check(api.add_tier(pager, &tier, &index, error, sizeof error) == -EINVAL && strstr(error, "tier 2 (file)"), "a tier that is too small is refused", error);
    check(api.add_tier(pager, NULL, &index, error, sizeof error) == -EINVAL, "no tier is refused", error);
    tier.max_bytes = 256 * MIB;
    check(api.add_tier(pager, &tier, &index, error, sizeof error) == 0 && index == 2, "a tier is added", error);
    check(api.remove_tier(pager, 5, error, sizeof error) == -EINVAL && strstr(error, "tier 5 does not exist"), "what is not there is not removed", error);
    check(api.remove_tier(pager, 1, error, sizeof error) == 0, "a tier is removed", error);
    uint64_t deadline = now_ms() + 60000;
    while (tier_stats_of(pager, 1).state != FROSTLINE_TIER_REMOVED && now_ms() < deadline) {
        (void)*(volatile uint64_t *)&memory[now_ms() * 7919 % (length / PAGE) * 512];
    }
    check(tier_stats_of(pager, 1).state == FROSTLINE_TIER_REMOVED, "and is gone when it is empty", "state");
    check(tier_stats_of(pager, 2).stored_pages > 0, "its pages went to the new one", "stored_pages");
    check(tier_stats_of(pager, 2).write_bytes > 0, "and were written there", "write_bytes");
    check(api.remove_tier(pager, 0, error, sizeof error) == 0, "so is the compressed one", error);
    check(api.remove_tier(pager, 2, error, sizeof error) == -EINVAL && strstr(error, "the only one"), "the last one stays", error);
}

/* Pages memory through a small compressed tier and a file below it. */
static void cascades(void)
{
    char path[] = ".build/abi/tier-store";
    frostline_tier tiers[2] = {
        tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 16 * MIB),
        tier_of(FROSTLINE_TIER_FILE, path, 256 * MIB),
    };
    frostline_options options = options_with(tiers, 2);
    frostline_host host = silent_host();
    frostline_pager *pager;
    frostline_block *block;
    char error[512] = "";
    uint64_t length = 96 * MIB;
    uint64_t *memory = (uint64_t *)mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager with two tiers is created", error);
    check(strcmp(stats_of(pager).store, "tiers") == 0, "its store is called tiers", stats_of(pager).store);
    check(tier_stats_of(pager, 2).state == FROSTLINE_TIER_REMOVED, "there is no third tier", "state");
    frostline_block_info info = block_info("ram", memory, length);
    check(api.attach(pager, &info, &block, error, sizeof error) == 0, "a block is attached", error);
    for (uint64_t page = 0; page < length / PAGE; page++) {
        for (uint64_t word = 0; word < 512; word++) {
            memory[page * 512 + word] = stamp(page, word);
        }
    }
    uint64_t deadline = now_ms() + 60000;
    while (stats_of(pager).evicted_bytes < 48 * MIB && now_ms() < deadline) {
    }
    frostline_tier_stats first = tier_stats_of(pager, 0), second = tier_stats_of(pager, 1);
    check(first.kind == FROSTLINE_TIER_COMPRESSED && second.kind == FROSTLINE_TIER_FILE, "tiers say their kinds", "kind");
    check(first.stored_pages > 0 && second.stored_pages > 0, "both tiers have pages", "stored_pages");
    check(first.cost <= 16 * MIB && first.payload <= first.cost, "the first keeps its ceiling", "cost");
    check(second.stored_bytes == second.stored_pages * PAGE, "pages are bytes", "stored_bytes");
    check(second.connections == 0 && second.lost_connections == 0, "a file has no connections", "connections");
    check(first.in_flight_max == 0 && first.in_flight_bytes_max == 0 && first.in_flight == 0 && first.in_flight_bytes == 0, "nothing is in flight in memory", "in_flight");
    check(second.in_flight_max >= 64 && second.in_flight_bytes_max >= 64 * PAGE, "what is in flight to a file is bounded", "in_flight_max");
    check(second.in_flight <= second.in_flight_max && second.in_flight_bytes <= second.in_flight_bytes_max, "and keeps its bounds", "in_flight");
    int wrong = 0;
    for (uint64_t page = 0; page < length / PAGE; page++) {
        for (uint64_t word = 0; word < 512; word++) {
            wrong += memory[page * 512 + word] != stamp(page, word);
        }
    }
    check(wrong == 0, "every byte comes back from either tier", "");
    comes_and_goes(pager, memory, length);
    for (uint64_t page = 0; page < length / PAGE; page++) {
        for (uint64_t word = 0; word < 512; word++) {
            wrong += memory[page * 512 + word] != stamp(page, word);
        }
    }
    check(wrong == 0, "and so it does afterwards", "");
    api.detach(block);
    check(tier_stats_of(pager, 0).stored_pages == 0 && tier_stats_of(pager, 1).stored_pages == 0, "nothing stays in the tiers", "stored_pages");
    api.destroy(pager);
    munmap(memory, length);
}

/* What tiers say of their seals; compressed memory has one only on demand. */
static void seals(void)
{
    const struct { uint32_t seal; int memory, file; } cases[] = {
        {FROSTLINE_SEAL_AUTO, 0, 1}, {FROSTLINE_SEAL_OFF, 0, 0}, {FROSTLINE_SEAL_ON, 1, 1}};
    for (int i = 0; i < 3; i++) {
        char path[] = ".build/abi/sealed-store", error[512] = "";
        frostline_tier tiers[2] = {
            tier_of(FROSTLINE_TIER_COMPRESSED, NULL, 0), tier_of(FROSTLINE_TIER_FILE, path, 64 * MIB)};
        tiers[0].seal = tiers[1].seal = cases[i].seal;
        frostline_options options = options_with(tiers, 2);
        frostline_host host = silent_host();
        frostline_pager *pager;
        check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager with seals is created", error);
        for (uint32_t index = 0; index < 2; index++) {
            const char *seal = tier_stats_of(pager, index).seal;
            int expected = index == 0 ? cases[i].memory : cases[i].file;
            check((strcmp(seal, "none") != 0) == expected, "a tier says how it is sealed", seal);
        }
        check((strcmp(stats_of(pager).seal, "none") != 0) == cases[i].file, "the pager's seal is that of devices", stats_of(pager).seal);
        api.destroy(pager);
        options = good_options();
        options.seal = cases[i].seal;
        check(api.create(&options, &host, &pager, error, sizeof error) == 0, "so it is without a list", error);
        check((strcmp(tier_stats_of(pager, 0).seal, "none") != 0) == cases[i].memory, "compressed memory is sealed on demand", "seal");
        api.destroy(pager);
    }
}

/* Bytes that the nameless file has of its file system. */
static uint64_t space_of(const char *name)
{
    uint64_t bytes = 0;
    DIR *descriptors = opendir("/proc/self/fd");
    for (struct dirent *entry; descriptors != NULL && (entry = readdir(descriptors)) != NULL;) {
        char target[4096] = "";
        struct stat status;
        if (readlinkat(dirfd(descriptors), entry->d_name, target, sizeof target - 1) > 0
            && strstr(target, name) != NULL && fstat(atoi(entry->d_name), &status) == 0) {
            bytes = (uint64_t)status.st_blocks * 512;
        }
    }
    closedir(descriptors);
    return bytes;
}

/* Which of a file and its mirror have their space from the start. */
static void preallocates(int first, int second)
{
    frostline_tier mirror = tier_of(FROSTLINE_TIER_FILE, ".build/abi/mirror-space", 64 * MIB);
    frostline_tier tier = tier_of(FROSTLINE_TIER_FILE, ".build/abi/space", 64 * MIB);
    tier.preallocate = (uint32_t)first;
    mirror.preallocate = (uint32_t)second;
    tier.mirror = &mirror;
    frostline_options options = options_with(&tier, 1);
    frostline_host host = silent_host();
    frostline_pager *pager;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager with a mirrored file is created", error);
    const char *names[2] = {"abi/space", "abi/mirror-space"};
    for (int side = 0; side < 2; side++) {
        uint64_t space = space_of(names[side]);
        check((side == 0 ? first : second) ? space >= 64 * MIB : space < MIB, "a file has its space when that was asked for", names[side]);
    }
    api.destroy(pager);
    check(space_of(names[0]) == 0 && space_of(names[1]) == 0, "the files are gone with the pager", "st_blocks");
}

/* Counts the connections to a server, which it kills. */
static void counts_connections(const char *uri, pid_t server)
{
    frostline_tier tier = tier_of(FROSTLINE_TIER_NBD, uri, 0);
    tier.connections = 3;
    frostline_options options = options_with(&tier, 1);
    frostline_host host = silent_host();
    frostline_pager *pager;
    char error[512] = "";
    check(api.create(&options, &host, &pager, error, sizeof error) == 0, "a pager with an export is created", error);
    frostline_tier_stats stats = tier_stats_of(pager, 0);
    check(stats.connections == 3 && stats.connected == 3, "its connections are there", "connected");
    check(stats.lost_connections == 0 && stats.failed_reconnections == 0 && stats.reconnections == 0, "and none was lost", "lost_connections");
    kill(server, SIGKILL);
    uint64_t deadline = now_ms() + 60000;
    do {
        stats = tier_stats_of(pager, 0);
    } while ((stats.connected > 0 || stats.lost_connections < 3 || stats.failed_reconnections == 0) && now_ms() < deadline);
    check(stats.connections == 3 && stats.connected == 0, "they are lost with the server", "connected");
    check(stats.lost_connections == 3 && stats.failed_reconnections > 0, "and it is tried again", "failed_reconnections");
    check(stats.reconnections == 0 && stats.refused_reconnections == 0, "in vain", "reconnections");
    api.destroy(pager);
}

void test_exports(const char *uri, const char *server)
{
    counts_connections(uri, (pid_t)atoi(server));
}

void test_tiers(void)
{
    preallocates(0, 0);
    preallocates(1, 0);
    preallocates(0, 1);
    seals();
    refuses_lists();
    refuses_values();
    cascades();
}
