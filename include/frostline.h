/*
 * Frostline: a userspace pager for virtual-machine memory.
 *
 * This header is the whole contract between a virtual machine monitor (the
 * "host program") and libfrostline.so. The host program loads the library into
 * its own process, creates a pager, and attaches the blocks of guest RAM that
 * the pager may take cold pages from.
 *
 * Conventions
 * - Sizes and offsets are in bytes; offsets count from the start of a block.
 *   Times are in nanoseconds unless the name says otherwise.
 * - A function that can fail returns 0 or a negative errno. With it comes a
 *   sentence in `error` (never more than `error_size` bytes, always terminated)
 *   that names what was wrong, what is accepted and what to do.
 * - Every struct that crosses the boundary begins with `struct_size`, which its
 *   owner sets to sizeof as compiled. Fields are only ever appended. Reserved
 *   fields of what is passed in are 0: anything else is refused (-EINVAL).
 * - The library never frees memory of the host program, nor the reverse. Strings
 *   passed in are copied; strings handed out live as long as the library.
 * - "Control thread" below means: any thread, but never two at a time for the
 *   same pager. QEMU calls these with its big lock held.
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef FROSTLINE_H
#define FROSTLINE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever an older caller or library would misunderstand the other. */
#define FROSTLINE_ABI_VERSION 1u

/* One pager: its options, its threads, its store. */
typedef struct frostline_pager frostline_pager;
/* One attached block of guest RAM. */
typedef struct frostline_block frostline_block;

/* How the pager learns which pages were touched. */
typedef enum frostline_tracker {
    /* RWP where the kernel has it. Otherwise ZAP for shared memory, and for private memory
     * WP, or else NONE; a warning says so. */
    FROSTLINE_TRACKER_AUTO = 0,
    /* userfaultfd read-write protection, asynchronous (Linux 7.3). */
    FROSTLINE_TRACKER_RWP = 1,
    /* No tracking: a page is as old as its last arrival in RAM. */
    FROSTLINE_TRACKER_NONE = 2,
    /* userfaultfd write protection, asynchronous (Linux 6.7). Reads go unnoticed: a
     * page that is only read looks cold, and is fetched again at the next read. */
    FROSTLINE_TRACKER_WP = 3,
    /* Unmapping: what is mapped again at the next look was touched, reads included. Needs
     * no protection in the kernel, and costs a minor fault a touch. Shared memory only:
     * other blocks are refused. */
    FROSTLINE_TRACKER_ZAP = 4
} frostline_tracker;

/* How a page is taken from the guest without losing a write. */
typedef enum frostline_guard {
    FROSTLINE_GUARD_AUTO = 0,
    /* UFFDIO_MOVE into staging: atomic, private anonymous memory only. */
    FROSTLINE_GUARD_MOVE = 1,
    /* Minor faults: the page is unmapped, read through another mapping and punched out
     * of its file. Shared memory without a name only (memfd). */
    FROSTLINE_GUARD_MINOR = 2,
    /* Read-write protection turned synchronous while pages are taken (UFFDIO_SET_MODE,
     * Linux 7.3): accesses to armed pages wait meanwhile. Private and shared memory; with
     * tracker RWP only. On demand only. */
    FROSTLINE_GUARD_FREEZE = 3,
    /* Synchronous write protection: protect, store, drop. Private anonymous memory, with
     * tracker WP only, whose first write to an armed page then waits for the pager. On
     * demand only. */
    FROSTLINE_GUARD_WRITE_PROTECT = 4
} frostline_guard;

/* Where cold pages live. */
typedef enum frostline_store {
    /* Compressed, in this process's memory. Needs no configuration; may have a
     * compression, an incompressible policy and a pool_max. */
    FROSTLINE_STORE_COMPRESSED = 0,
    /* A local file or block device, opened O_DIRECT. Needs store_path, store_size. */
    FROSTLINE_STORE_FILE = 1
} frostline_store;

/* Whether what is stored is encrypted, and authenticated as that page's contents. The
 * key is new each time, never leaves RAM and is gone with the pager, and so is what it sealed. */
typedef enum frostline_seal {
    /* On files, devices and exports: yes. In memory: no. */
    FROSTLINE_SEAL_AUTO = 0,
    /* No: the guest's memory can be read from the file, and damage to it goes unnoticed. */
    FROSTLINE_SEAL_OFF = 1,
    /* Yes, in memory as well: what the host swaps or dumps of it cannot be read, and damage to it
     * is a read error. */
    FROSTLINE_SEAL_ON = 2
} frostline_seal;

/* How the compressed store, or tier, compresses. */
typedef enum frostline_compression {
    /* Quick both ways. Has no levels: compression_level must be 0. */
    FROSTLINE_COMPRESSION_LZ4 = 0,
    /* Smaller and slower. compression_level 1 (quick) to 19 (thorough); 0 stands for 3. */
    FROSTLINE_COMPRESSION_ZSTD = 1
} frostline_compression;

/* What the compressed store, or tier, does with a page that compression leaves larger than 3840
 * bytes. */
typedef enum frostline_incompressible {
    /* It does not take it: the next tier has it, or else it stays in RAM. */
    FROSTLINE_INCOMPRESSIBLE_REFUSE = 0,
    /* It keeps it as it is, which costs a little more than the page did. */
    FROSTLINE_INCOMPRESSIBLE_KEEP_RAW = 1
} frostline_incompressible;

/* What a tier keeps pages in. */
typedef enum frostline_tier_kind {
    /* This process's memory, compressed. */
    FROSTLINE_TIER_COMPRESSED = 0,
    /* A local file or block device, opened O_DIRECT. */
    FROSTLINE_TIER_FILE = 1,
    /* An export of an NBD server. */
    FROSTLINE_TIER_NBD = 2
} frostline_tier_kind;

/* The most tiers that one pager has. */
#define FROSTLINE_TIERS_MAX 7u

/*
 * One of the places where cold pages live. A page goes to the first tier that takes it.
 * While a tier is nearly full, its oldest pages move on to the next that has room, in the
 * background. COMPRESSED may be there once, and is first. What a kind does not use is 0.
 */
typedef struct frostline_tier {
    uint32_t struct_size;
    uint32_t kind;              /* enum frostline_tier_kind */
    /* COMPRESSED: as pool_max of the options. FILE: bytes in use,
     * a multiple of 4096, at least 2 MiB. NBD: the same; 0: the whole export. */
    uint64_t max_bytes;
    const char *path;           /* FILE: the path. NBD: a URI, as in nbd://host/export. */
    uint32_t compression;       /* enum frostline_compression; FILE and NBD: 0 */
    int32_t compression_level;  /* as in the options; FILE and NBD: 0 */
    uint32_t incompressible;    /* enum frostline_incompressible; FILE and NBD: 0 */
    uint32_t seal;              /* enum frostline_seal */
    const char *tls_certificates; /* NBD: the folder with ca-cert.pem and so on; or NULL */
    uint32_t connections;       /* NBD: at most 16; 0: 2, where the server allows it */
    uint32_t timeout_seconds;   /* NBD: how long a lost server is waited for; 0: 30 */
    /* FILE and NBD: bounds on what this pager does to the device, kept on average; bursts of
     * one second. 0: none. When reads are bounded, pages stop coming early before any guest
     * access waits for its turn. */
    uint64_t read_iops_max;
    uint64_t read_bytes_max;    /* per second */
    uint64_t write_iops_max;
    uint64_t write_bytes_max;   /* per second */
    /* FILE and NBD: a second place, FILE or NBD and without a mirror of its own, that holds
     * the same: a page is stored when both have it, and read from the other if one fails.
     * Excludes FROSTLINE_SEAL_OFF: the seal tells which of them is right. Kind, max_bytes, path,
     * preallocate and what belongs to NBD are used of it. NULL: none. */
    const struct frostline_tier *mirror;
    /* FILE, not a block device: 1: the space of max_bytes is set aside at the start, or creation
     * fails with -ENOSPC, and kept until the end. 0: the file grows, and shrinks. */
    uint32_t preallocate;
    uint32_t reserved;          /* 0 */
} frostline_tier;

/* What becomes of a guest access whose page the store cannot give back. */
typedef enum frostline_read_error {
    /* The access waits, the host program is told to stop the VM, and the read
     * is tried again every second until it succeeds. */
    FROSTLINE_READ_ERROR_STOP = 0,
    /* The page is poisoned: a vCPU takes a machine check. Any other thread of
     * the host program that touches the page gets SIGBUS. */
    FROSTLINE_READ_ERROR_MACHINE_CHECK = 1
} frostline_read_error;

typedef struct frostline_options {
    uint32_t struct_size;
    uint32_t tracker;         /* enum frostline_tracker */
    uint32_t guard;           /* enum frostline_guard */
    uint32_t store;           /* enum frostline_store */
    uint32_t read_error;      /* enum frostline_read_error */
    uint32_t reserved;        /* 0 */
    uint64_t limit;           /* see FROSTLINE_SETTING_LIMIT */
    uint64_t idle_age;        /* see FROSTLINE_SETTING_IDLE_AGE */
    const char *store_path;   /* FILE: required. COMPRESSED: NULL. */
    uint64_t store_size;      /* FILE: required, at least 2 MiB. COMPRESSED: 0. */
    uint64_t stall_budget;    /* see FROSTLINE_SETTING_STALL_BUDGET */
    uint32_t mode;            /* enum frostline_mode, see FROSTLINE_SETTING_MODE */
    uint32_t vcpus;           /* see FROSTLINE_SETTING_VCPUS; 0 counts as 1 */
    /* COMPRESSED only, otherwise 0; with tiers each has its own. */
    uint32_t compression;     /* enum frostline_compression */
    int32_t compression_level;
    uint32_t incompressible;  /* enum frostline_incompressible */
    uint32_t seal;            /* enum frostline_seal; with tiers 0 */
    /* The most host memory that the pool may hold, waste and bookkeeping included; never
     * exceeded. When it is reached, pages stay in RAM. 0: no ceiling of its own; otherwise
     * at least FROSTLINE_POOL_MAX_MIN. */
    uint64_t pool_max;
    const void *key;          /* makes the key that seals, together with randomness; NULL: a random key */
    uint64_t key_length;      /* bytes of it, at least FROSTLINE_KEY_MIN; 0 with NULL */
    /* Where cold pages live, in this order: `tier_count` structs, one after the other, each
     * as long as the struct_size of the first says. 0 tiers: store, store_path and store_size
     * say it; with tiers these are 0. */
    const frostline_tier *tiers;
    uint32_t tier_count;      /* at most FROSTLINE_TIERS_MAX */
    uint32_t reserved3;       /* 0 */
} frostline_options;

#define FROSTLINE_POOL_MAX_MIN (UINT64_C(16) << 20)
#define FROSTLINE_KEY_MIN 16u

/* What the pager does at all. */
typedef enum frostline_mode {
    /* Looks which pages are cold, and evicts. */
    FROSTLINE_MODE_ACTIVE = 0,
    /* Looks, and evicts nothing; frostline_block_working_set tells what would leave. */
    FROSTLINE_MODE_OBSERVE = 1,
    /* Neither. What is out comes back when the guest touches it. */
    FROSTLINE_MODE_OFF = 2,
    /* Brings everything back, then as OFF. */
    FROSTLINE_MODE_DRAIN = 3
} frostline_mode;

/* What can be changed while the pager runs. */
typedef enum frostline_setting {
    /* The most host memory, in bytes, that the guest's RAM may cost: resident
     * pages, compressed pool and staging together. 0: no limit; otherwise at
     * least FROSTLINE_LIMIT_MIN. It is kept by evicting, coldest first, and may
     * be passed for as long as the guest allocates faster than the store takes. */
    FROSTLINE_SETTING_LIMIT = 1,
    /* Pages untouched for this long, in nanoseconds, are evicted. 0: age alone
     * evicts nothing; otherwise at least one second and at most one day. */
    FROSTLINE_SETTING_IDLE_AGE = 2,
    /* An enum frostline_mode. Eviction ends within one batch of 512 pages. */
    FROSTLINE_SETTING_MODE = 3,
    /* The share of vCPU time, in millionths, that may be spent waiting for pages. While
     * less is, the coldest pages are evicted beyond limit and idle age, ever more as
     * long as it stays below; when more is, nothing leaves but for the limit's sake.
     * 0: no budget; at most 500000. 5000 (0.5 %) is a good start. */
    FROSTLINE_SETTING_STALL_BUDGET = 4,
    /* How many vCPUs the guest has, at least 1: their time is what the stall budget is a
     * share of. For a host program that does not know when it creates the pager. */
    FROSTLINE_SETTING_VCPUS = 5,
    /* Whether the VM runs: 1, as at first, or 0. The stall budget is a share of the time in which
     * it does. Idle ages and the limit do not go by it. */
    FROSTLINE_SETTING_RUNNING = 6
} frostline_setting;

#define FROSTLINE_LIMIT_MIN (UINT64_C(32) << 20)

typedef enum frostline_log_level {
    FROSTLINE_LOG_ERROR = 0,
    FROSTLINE_LOG_WARNING = 1,
    FROSTLINE_LOG_INFO = 2
} frostline_log_level;

typedef enum frostline_event_kind {
    /* A tier failed to take a page, or the last one is full. The page went to the next tier, or
     * stays in RAM, and the guest goes on. ETIMEDOUT without a block: for 30 seconds a file or
     * device has not ended what it was asked to when pages were to leave. They wait, as long as
     * it takes. */
    FROSTLINE_EVENT_WRITE_FAILED = 1,
    /* That tier takes pages again. One that is removed before it does is not heard of. */
    FROSTLINE_EVENT_WRITE_RECOVERED = 2,
    /* A stored page could not be read and a guest access waits for it: the host
     * program must stop the VM (read_error=STOP), or the page was poisoned. */
    FROSTLINE_EVENT_READ_FAILED = 3,
    /* No guest access waits for an unreadable page any more. */
    FROSTLINE_EVENT_READ_RECOVERED = 4,
    /* A tier failed to give pages that no guest access waits for: they were to come early, or to
     * move, or the other place of a mirrored tier gave them. The guest goes on. At the first
     * of them, and while there are more once a minute; read_errors of the tier counts them. */
    FROSTLINE_EVENT_UNAWAITED_READ_FAILED = 5
} frostline_event_kind;

typedef struct frostline_event {
    uint32_t struct_size;
    uint32_t kind;            /* enum frostline_event_kind */
    const char *block;        /* name of the block, valid during the call; may be "" */
    uint64_t offset;          /* of the page within the block */
    int32_t error;            /* positive errno, 0 when there is none */
    uint32_t poisoned;        /* 1: the page was poisoned, no need to stop the VM */
    int32_t tier;             /* index of the tier that it is about; -1: none */
    uint32_t reserved;
} frostline_event;

/*
 * What the library may call in the host program. Both run on the library's own
 * threads, the fault server among them: they must not block, must not touch
 * guest memory, and must not wait for a thread that may touch guest memory (so
 * in QEMU they must not take the big lock). Either may be NULL.
 */
typedef struct frostline_host {
    uint32_t struct_size;
    uint32_t reserved;        /* 0 */
    void *opaque;
    void (*log)(void *opaque, uint32_t level, const char *message);
    void (*event)(void *opaque, const frostline_event *event);
} frostline_host;

typedef enum frostline_block_flags {
    /* The kernel may merge pages of the block with equal ones (KSM): what it has merged is
     * recognised when it is to leave, stays in RAM, and is counted. Not together with
     * FROSTLINE_GUARD_WRITE_PROTECT, which merging would undo. */
    FROSTLINE_BLOCK_MERGEABLE = 1
} frostline_block_flags;

/* A block of guest RAM: private anonymous memory of this process, or shared memory
 * without a name (memfd), which no other process may have mapped. Shared memory may be in
 * huge pages of 2 MiB (hugetlbfs) where the kernel has read-write protection: they leave and
 * come back whole, by guard MINOR, and a descriptor of their file must be open in this
 * process. Offsets and lengths of discards are whole huge pages then. */
typedef struct frostline_block_info {
    uint32_t struct_size;
    uint32_t page_size;       /* of the mapping: 4096, or 2097152 for hugetlbfs */
    const char *name;         /* for messages and statistics */
    void *address;            /* page-aligned */
    uint64_t length;          /* a multiple of the page size, not 0 */
    uint32_t flags;           /* of enum frostline_block_flags */
    uint32_t reserved;        /* 0 */
} frostline_block_info;

/* Bucket i of the fault-time histogram counts faults served in less than
 * 2^i nanoseconds and not less than 2^(i-1). */
#define FROSTLINE_FAULT_TIME_BUCKETS 40

typedef struct frostline_stats {
    uint32_t struct_size;
    uint32_t reserved;
    const char *tracker;      /* in use: "rwp", "wp", "zap", "none", or "wp,zap" for both kinds of memory */
    const char *guard;        /* in use: "move", "minor", "move,minor", "freeze" or "write-protect" */
    const char *store;        /* "compressed", "file" or "nbd"; "tiers" when there are several */
    /* Bytes of guest memory, by where they are. */
    uint64_t guest_bytes;         /* sum of the attached blocks */
    uint64_t resident_bytes;      /* in RAM as of the last pass, corrected for evictions and faults since */
    uint64_t evicted_bytes;       /* in the store, all tiers */
    uint64_t same_filled_bytes;   /* … of which same-filled: kept as one word each */
    uint64_t compressed_bytes;    /* … of which compressed */
    uint64_t file_bytes;          /* … of which in the file */
    /* Bytes of host memory or storage that it costs. */
    uint64_t same_filled_cost;
    uint64_t compressed_cost;     /* memory the pool holds, waste included */
    uint64_t compressed_payload;  /* … of which compressed data */
    uint64_t file_cost;           /* bytes of the file in use, garbage included */
    uint64_t staging_bytes;       /* leaving: moved out, not stored yet */
    uint64_t staging_max_bytes;   /* bound of staging_bytes */
    uint64_t metadata_bytes;      /* page tables, ages, bookkeeping: memory really touched */
    /* Settings in force. */
    uint64_t limit;
    uint64_t idle_age;
    /* Counters since the pager was created. */
    uint64_t faults;              /* fault messages answered */
    uint64_t fetches;             /* pages brought back from the store */
    uint64_t rescues;             /* pages touched while leaving, put back from staging */
    uint64_t zero_fills;          /* first touches, or touches after a discard */
    uint64_t duplicate_faults;    /* messages for a page that was already back */
    uint64_t evictions;           /* pages whose only copy is, or was, in the store */
    uint64_t busy_pages;          /* refused by UFFDIO_MOVE: pinned, merged or shared after fork */
    uint64_t returned_pages;      /* put back because the store refused them */
    uint64_t discarded_pages;     /* dropped from staging or store by a discard */
    uint64_t write_errors;
    uint64_t read_errors;
    uint64_t poisoned_pages;
    uint64_t waiting_pages;       /* unreadable at this moment, a guest access waits for each */
    uint64_t passes;              /* scans of guest memory for touched pages */
    uint64_t touched_bytes;       /* found touched by the last pass */
    /* Time from reading a fault message to the page being in place. */
    uint64_t fault_time_p50;
    uint64_t fault_time_p99;
    uint64_t fault_time_max;
    uint64_t fault_time_counts[FROSTLINE_FAULT_TIME_BUCKETS];
    /* Settings in force, too. */
    uint64_t stall_budget;
    uint64_t mode;                /* enum frostline_mode */
    /* Time that all faults together took, in nanoseconds. */
    uint64_t fault_time_total;
    uint64_t prefetches;          /* pages fetched before they were wanted, part of fetches */
    uint64_t prefetch_hits;       /* … of which the guest went through */
    uint64_t clean_evictions;     /* part of evictions: nothing was written, the store still had them */
    uint64_t kept_copy_bytes;     /* in RAM, and a copy is kept in the store until space is wanted */
    uint64_t swapped_bytes;       /* in the host's own swap as of the last pass: left to the host */
    uint64_t merged_bytes;        /* in RAM: merged (KSM) when they were to leave, and since untouched */
    /* Bytes written to the file or device for pages that left RAM, and to make room there: the
     * write amplification is their sum by the first. */
    uint64_t written_bytes;
    uint64_t rewritten_bytes;
    const char *seal;             /* of what is on the device: "aes-256-gcm", "chacha20-poly1305" or "none" */
    uint64_t raw_bytes;           /* part of compressed_bytes: kept as they are, being incompressible */
    uint64_t compaction_moves;    /* objects of the pool that were moved closer together */
    uint64_t pool_max;            /* as the options said: bound of compressed_cost; 0 for none */
    /* The stall budget at work, as of a second ago or so; 0 without a budget. */
    uint64_t stall_share;         /* millionths of vCPU time that are lost: what the budget is compared with */
    uint64_t eviction_pace;       /* pages a second that leave because the guest hardly notices; 0 above the budget */
    /* Accesses to pages that were just leaving, which waited until those were put back, and for how
     * long at most, together: not in fault_time_total, but the budget counts them, too. */
    uint64_t held_up_accesses;
    uint64_t held_up_time;
    uint64_t huge_page_splits;    /* huge pages that were split, to learn which of their pages are in use */
    uint64_t huge_page_mends;     /* ranges of which all but a few pages were in use, made huge pages again */
    uint64_t huge_page_departures; /* huge pages that left whole */
    uint64_t huge_page_returns;   /* of those, made whole again once they were back */
} frostline_stats;

/* What a tier is doing. */
typedef enum frostline_tier_state {
    /* It takes pages. */
    FROSTLINE_TIER_ACTIVE = 0,
    /* It has no room: the next one has what it refuses. */
    FROSTLINE_TIER_FULL = 1,
    /* It failed to take pages, and is tried again after a while; or it has not answered for 30
     * seconds. What it has stays there. */
    FROSTLINE_TIER_FAILING = 2,
    /* It is being removed: its pages go elsewhere. */
    FROSTLINE_TIER_DRAINING = 3,
    /* There is no tier of this index. */
    FROSTLINE_TIER_REMOVED = 4
} frostline_tier_state;

typedef struct frostline_tier_stats {
    uint32_t struct_size;
    uint32_t kind;            /* enum frostline_tier_kind */
    uint32_t state;           /* enum frostline_tier_state */
    uint32_t reserved;
    uint64_t stored_pages;    /* pages of which this is the only home */
    uint64_t stored_bytes;    /* … in bytes of guest memory */
    uint64_t copy_pages;      /* pages kept, or not taken away yet, of which it is not */
    uint64_t cost;            /* bytes of host memory, or of the device, waste included */
    uint64_t payload;         /* … of which data */
    uint64_t max_bytes;       /* ceiling of cost; 0: none */
    uint64_t writes;          /* pages that it took */
    uint64_t reads;           /* pages read from it for an access, or early */
    uint64_t demotions;       /* pages that moved on to another tier */
    uint64_t write_errors;    /* pages that it failed to take; being full is none */
    uint64_t read_errors;
    uint64_t write_transfers; /* writes to the device, and bytes */
    uint64_t write_bytes;
    uint64_t read_transfers;  /* reads from the device, and bytes */
    uint64_t read_bytes;
    /* NBD, of a tier and its mirror together; otherwise 0. */
    uint32_t connections;     /* connections that are used */
    uint32_t connected;       /* … of which are there at this moment */
    uint64_t lost_connections; /* times that one was lost, or given up because nothing came any more */
    uint64_t reconnections;   /* connections that were made in the place of lost ones */
    uint64_t failed_reconnections; /* attempts to do so that failed */
    uint64_t refused_reconnections; /* … of which found something else than the tier's export */
    uint64_t repeated_requests; /* requests that were sent again over another connection */
    uint64_t timed_out_requests; /* requests that failed because the server was away for too long */
    uint64_t failed_reads;    /* reads that the server answered with an error */
    uint64_t failed_writes;   /* writes and discards that it answered so */
    const char *seal;         /* of what it keeps: "aes-256-gcm", "chacha20-poly1305" or "none" */
    /* Reads and writes that the device has not ended yet, and their bytes, with their bounds; of a
     * mirrored tier each is two. COMPRESSED: 0. */
    uint64_t in_flight;
    uint64_t in_flight_max;
    uint64_t in_flight_bytes;
    uint64_t in_flight_bytes_max;
} frostline_tier_stats;

/* Thresholds of a working set: idle for at least 2^0, 2^1 … 2^12 seconds. */
#define FROSTLINE_IDLE_THRESHOLDS 13

/* A block's working set, as of the last look at its memory. */
typedef struct frostline_working_set {
    uint32_t struct_size;
    uint32_t reserved;
    const char *block;        /* its name, valid until the block is detached */
    uint64_t guest_bytes;
    uint64_t resident_bytes;
    /* [i]: bytes in RAM that have been idle for at least 2^i seconds. Eviction at that
     * age would take them out of RAM. */
    uint64_t idle_bytes[FROSTLINE_IDLE_THRESHOLDS];
    /* [i]: pages in a thousand seconds, on average over about a minute, that were touched
     * after they had been idle for at least 2^i seconds: the faults that eviction at
     * that age costs, as long as the guest goes on like this. */
    uint64_t returns_per_1000s[FROSTLINE_IDLE_THRESHOLDS];
} frostline_working_set;

/* The ABI version of the library. Call it first: when it differs from
 * FROSTLINE_ABI_VERSION, call nothing else. Any thread. */
uint32_t frostline_abi_version(void);

/* The release of the library, such as "0.1.0". Any thread. */
const char *frostline_version(void);

/*
 * Creates a pager: checks the options, probes the kernel, opens the store and
 * starts the threads. Must run after any fork that the host program does.
 * Control thread. On failure *out is NULL and nothing is left behind.
 *   -EINVAL      an argument is missing, or an option is out of range
 *   -EOPNOTSUPP  the kernel lacks what was demanded or what every pager needs,
 *                or the store's file system has no O_DIRECT
 *   -EPERM       no permission for a userfaultfd that handles kernel faults
 *   -EBUSY       the store is in use by another process
 *   -EEXIST      the store is a file with contents
 *   -ENOSPC      the store is a block device smaller than store_size
 *   other        as the store's path answered, or there is no memory, descriptor
 *                or thread to be had
 */
int frostline_pager_create(const frostline_options *options, const frostline_host *host,
                           frostline_pager **out, char *error, size_t error_size);

/* Stops the threads and closes the store. No block may be attached. Control thread. */
void frostline_pager_destroy(frostline_pager *pager);

/* Changes a frostline_setting. The next pass goes by it. Control thread.
 * -EINVAL: unknown setting, or a value out of its range; the old one stays. */
int frostline_pager_set(frostline_pager *pager, uint32_t setting, uint64_t value,
                        char *error, size_t error_size);

/* Fills in `stats`. Takes no lock, waits for nothing, touches no guest memory.
 * Any thread, at any time before the pager is destroyed. */
void frostline_pager_stats(const frostline_pager *pager, frostline_stats *stats);

/* Fills in `stats` of the tier at `index`; state REMOVED when there is none. Takes no lock,
 * waits for nothing. Any thread, at any time before the pager is destroyed. */
void frostline_pager_tier_stats(const frostline_pager *pager, uint32_t index,
                                frostline_tier_stats *stats);

/*
 * Adds a tier below all others, but for COMPRESSED, which becomes the first. *index is
 * how the other functions and events call it: an index is used again only after its tier
 * was removed. Opens the device, which may take as long as that takes. Control thread. On
 * failure nothing has changed.
 *   -EINVAL      an argument is missing or out of range, or there is such a tier already
 *   -ENOSPC      there are FROSTLINE_TIERS_MAX, those being removed included, or the device
 *                is smaller than max_bytes
 *   other        as of frostline_pager_create()
 */
int frostline_pager_add_tier(frostline_pager *pager, const frostline_tier *tier, uint32_t *index,
                             char *error, size_t error_size);

/*
 * Begins to remove a tier: it takes no more pages, and those it has move to the other
 * tiers, or back into guest memory where none has room (but for huge pages of hugetlbfs, which
 * wait); then its state is REMOVED, and a moment later its device is closed. That happens in
 * the background, faults are served meanwhile; pages that cannot be read stay, and the tier
 * with them, until they can. With FROSTLINE_MODE_OFF or OBSERVE it waits. Control thread.
 *   -EINVAL  there is no such tier, it is being removed already, or it is the last one
 */
int frostline_pager_remove_tier(frostline_pager *pager, uint32_t index, char *error, size_t error_size);

/*
 * Takes a block under management. Before the guest, or anything else, runs on it.
 * Merging (KSM) of the block is switched off, unless flags say otherwise: merged pages
 * cannot be moved.
 * Control thread. On failure *out is NULL and the block is as it was, but for
 * merging.
 *   -EINVAL      an argument is missing, or the memory is not page-aligned, empty,
 *                of another page size, or not of a kind that can be paged
 *   -EOPNOTSUPP  page_size is neither 4096 nor 2097152, or the tracker or guard that was
 *                demanded, or this kernel, does not fit this kind of memory
 *   -EBUSY       the memory is registered with another userfaultfd, or the pager
 *                has as many blocks as it takes (64)
 *   other        as the kernel answered; -ENOMEM may mean vm.max_map_count
 */
int frostline_block_attach(frostline_pager *pager, const frostline_block_info *info,
                           frostline_block **out, char *error, size_t error_size);

/* Gives the block up. Its evicted contents are lost: for memory that is about to
 * be unmapped. Waits for evictions and fetches in flight. Control thread. */
void frostline_block_detach(frostline_block *block);

/* Fills in `set`. Disturbs no ages, takes no lock, waits for nothing. Any thread, while
 * the block is attached. */
void frostline_block_working_set(const frostline_block *block, frostline_working_set *set);

/*
 * A block's hotness as bytes: how long each page has been idle, for migration and for
 * restarting a pager. What is in them is versioned, checked on import, and independent of
 * pager, host and clock. They take far less than half a byte a page on real guests.
 *
 * To hand a guest over with its ages: stop it; export; bring its memory to the other
 * block; import; let it run. In between nobody may use the memory but to bring it there:
 * another touch in between goes unnoticed, and a page that looks cold for that may be
 * evicted and fetched once in vain. What was written to bring it there looks as if just
 * touched until the import, so import after all pages are there. Pages that were evicted
 * count as idle for longer than all others, and for an idle age at least.
 */

/* The most bytes that an export of this block takes: a little more than half a byte a page.
 * Any thread. */
size_t frostline_block_hotness_size_max(const frostline_block *block);

/*
 * Looks at the block's memory, whatever the mode, and writes its hotness as of then to
 * `data`; *length is how many bytes. Evicted pages stay out. The worker waits meanwhile,
 * faults are served. Control thread.
 *   -EINVAL  an argument is missing
 *   -ENOSPC  `size` is too small; frostline_block_hotness_size_max() is enough
 *   -EIO     the kernel does not let us look at the memory
 */
int frostline_block_export_hotness(frostline_block *block, void *data, size_t size, size_t *length,
                                   char *error, size_t error_size);

/*
 * Gives the pages that are in RAM the ages that `data` says, and arms them, so that each
 * touch from then on counts. Ages are never taken to be longer than the exporter knew.
 * Pages that the exporter knew nothing of, or this pager's store refused, keep theirs. The
 * worker waits meanwhile, faults are served. Control thread. On failure nothing has changed.
 *   -EINVAL      an argument is missing, or the data are damaged, cut, or about a block of
 *                another size
 *   -EOPNOTSUPP  the data are of a version that this library does not know
 *   -EIO         the kernel does not let us look at the memory
 */
int frostline_block_import_hotness(frostline_block *block, const void *data, size_t length,
                                   char *error, size_t error_size);

/*
 * Brackets a discard: between the two calls the caller gives [offset, offset +
 * length) back to the kernel (MADV_DONTNEED), and afterwards the range reads as
 * zeros. It waits for no store I/O and no pin; at most for one UFFDIO_MOVE or
 * UFFDIO_COPY under way. An access by another thread in between waits until
 * the end. Any thread, any locks; offset and length in whole pages; the range
 * may not overlap another discard of the same block that is still open.
 */
void frostline_discard_begin(frostline_block *block, uint64_t offset, uint64_t length);
void frostline_discard_end(frostline_block *block, uint64_t offset, uint64_t length);

/*
 * Brackets a transfer: from the first call to the second, no page that [offset, offset +
 * length) touches is evicted, so that a device or the kernel may go on writing into the
 * memory that it found there (UFFDIO_MOVE notices pages pinned for DMA, but no plain
 * page references; nothing is noticed where pages leave by other ways). Call it before
 * the memory is looked up. Pages that are out already come back when they are touched.
 * It forbids no discard. It waits for at most one move of 512 pages. Any thread, any
 * locks; transfers may overlap; each begin needs one end with the same range.
 */
void frostline_transfer_begin(frostline_block *block, uint64_t offset, uint64_t length);
void frostline_transfer_end(frostline_block *block, uint64_t offset, uint64_t length);

#ifdef __cplusplus
}
#endif

#endif
