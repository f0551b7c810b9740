/*
 * A plugin of the emulator that counts the instructions which the lab host and its guests execute:
 * a measure of work that knows nothing of caches, nor of how fast the machine outside is. What is
 * done by the clock, such as ticks, counts as well, and more of it where all takes longer. The
 * count stands in the file of the argument "count=", eight bytes in this machine's order.
 *
 * What is declared here is the first version of QEMU's plugin interface, which QEMU 7.2 has and of
 * which Debian packages no header (include/qemu/qemu-plugin.h there).
 *
 * Copyright the Frostline authors. SPDX-License-Identifier: GPL-2.0-or-later
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_info_t;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };

void qemu_plugin_register_vcpu_tb_trans_cb(
    qemu_plugin_id_t id, void (*translated)(qemu_plugin_id_t, struct qemu_plugin_tb *));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
void qemu_plugin_register_vcpu_tb_exec_inline(
    struct qemu_plugin_tb *block, enum qemu_plugin_op operation, void *sum, uint64_t addend);

EXPORTED int qemu_plugin_version = 1;

/* One CPU executes, so nothing else adds to it. */
static uint64_t *executed;

/* Blocks are counted as they begin. The few that an exception cuts short count in full. */
static void count_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(
        block, QEMU_PLUGIN_INLINE_ADD_U64, executed, qemu_plugin_tb_n_insns(block));
}

EXPORTED int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    void *mapped;
    int file;

    (void)info;
    if (argc != 1 || strncmp(argv[0], "count=", 6)) {
        fputs("instructions: the one argument is count=FILE\n", stderr);
        return -1;
    }
    file = open(argv[0] + 6, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (file < 0 || ftruncate(file, sizeof *executed)) {
        perror(argv[0]);
        return -1;
    }
    mapped = mmap(NULL, sizeof *executed, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED) {
        perror(argv[0]);
        return -1;
    }
    executed = mapped;
    qemu_plugin_register_vcpu_tb_trans_cb(id, count_block);
    return 0;
}
