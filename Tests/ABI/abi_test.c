/*
 * The C ABI from the other side: a C program that knows nothing but the header,
 * loads the library as QEMU does, and pages real memory through it. Compiled as
 * C11 and as C++17 from this one file.
 */
#include "abi_test.h"

#include <dlfcn.h>
#include <time.h>

struct api api;
static int passed, failed;

void check(int holds, const char *what, const char *detail)
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
        {"frostline_pager_tier_stats", &api.tier_stats},
        {"frostline_pager_add_tier", &api.add_tier},
        {"frostline_pager_remove_tier", &api.remove_tier},
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

frostline_options good_options(void)
{
    frostline_options options;
    memset(&options, 0, sizeof options);
    options.struct_size = sizeof options;
    options.tracker = FROSTLINE_TRACKER_NONE;
    options.limit = FROSTLINE_LIMIT_MIN;
    return options;
}

frostline_host silent_host(void)
{
    frostline_host host;
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    return host;
}

frostline_block_info block_info(const char *name, void *address, uint64_t length)
{
    frostline_block_info info;
    memset(&info, 0, sizeof info);
    info.struct_size = sizeof info;
    info.page_size = (uint32_t)PAGE;
    info.name = name;
    info.address = address;
    info.length = length;
    return info;
}

void refuses(frostline_options options, int code, const char *word)
{
    frostline_host host = silent_host();
    frostline_pager *pager = (frostline_pager *)1;
    char error[512] = "";
    int answer = api.create(&options, &host, &pager, error, sizeof error);
    check(answer == code && pager == NULL && strstr(error, word) != NULL, word, error);
}

uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

frostline_stats stats_of(frostline_pager *pager)
{
    frostline_stats stats;
    memset(&stats, 0, sizeof stats);
    stats.struct_size = sizeof stats;
    api.stats(pager, &stats);
    return stats;
}

uint64_t stamp(uint64_t page, uint64_t word)
{
    return word % 2 ? page : (page + 1) * 0x9e3779b97f4a7c15u + word * 0xbf58476d1ce4e5b9u;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        printf("usage: %s LIBRARY NBD-URI NBD-SERVER-PID\n", argv[0]);
        return 2;
    }
    load(argv[1]);
    check(api.abi_version() == FROSTLINE_ABI_VERSION, "the ABI version is the header's", "");
    check(strlen(api.version()) > 0, "the library says its release", "");
    test_pagers();
    test_blocks();
    test_tiers();
    test_exports(argv[2], argv[3]);
    printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 ? 0 : 1;
}
