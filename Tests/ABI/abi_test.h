/* What the parts of the test share. */
#ifndef ABI_TEST_H
#define ABI_TEST_H

#include "frostline.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB ((uint64_t)1 << 20)
#define PAGE ((uint64_t)4096)

/* The library's functions, as `load` found them. */
struct api {
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
    void (*tier_stats)(const frostline_pager *, uint32_t, frostline_tier_stats *);
    int (*add_tier)(frostline_pager *, const frostline_tier *, uint32_t *, char *, size_t);
    int (*remove_tier)(frostline_pager *, uint32_t, char *, size_t);
};
extern struct api api;

/* Counts, and says what does not hold. */
void check(int holds, const char *what, const char *detail);

frostline_options good_options(void);
frostline_host silent_host(void);
frostline_block_info block_info(const char *name, void *address, uint64_t length);
frostline_stats stats_of(frostline_pager *pager);
uint64_t now_ms(void);
/* What word `word` of a page holds. */
uint64_t stamp(uint64_t page, uint64_t word);
/* A refusal must name the cause: `word` stands for it. */
void refuses(frostline_options options, int code, const char *word);

/* The parts, each in its file. */
void test_pagers(void);
void test_blocks(void);
void test_tiers(void);
/* With an NBD server of its own: the export, and the server's process. */
void test_exports(const char *uri, const char *server);

#endif
