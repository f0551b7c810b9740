/* Pagers: what they refuse, and the trackers and guards that they name. */
#include "abi_test.h"

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
    options.reserved = 1;
    refuses(options, -EINVAL, "frostline_options.reserved is 1");
    options = good_options();
    options.reserved3 = 7;
    refuses(options, -EINVAL, "frostline_options.reserved3 is 7");
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

static void refuses_host(void)
{
    frostline_options options = good_options();
    frostline_host host = silent_host();
    frostline_pager *pager = NULL;
    char error[512] = "";
    host.reserved = 5;
    check(api.create(&options, &host, &pager, error, sizeof error) == -EINVAL && pager == NULL && strstr(error, "frostline_host.reserved is 5"), "a reserved field of the host is refused", error);
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

void test_pagers(void)
{
    refusals();
    refuses_host();
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
}
