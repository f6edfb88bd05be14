/* What both plugins share: QEMU's plugin interface, version 1 (QEMU 5 to 8), declared here so that no QEMU header is
 * needed; the marks between regions; the report.
 *
 * Copyright (c) lrw contributors. SPDX-License-Identifier: MIT
 *
 * A guest marks its regions by system calls that no kernel knows: syscall(MARK + tag) ends region `tag`, which began at
 * the mark before. Region 0 is what came before the measurement; nobody wants its numbers.
 */
#ifndef LRW_BENCH_PLUGIN_H
#define LRW_BENCH_PLUGIN_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARK = 500000, MARKS = 1000 };

typedef uint64_t plugin_id;
typedef struct block block; /* a translated block of guest code */
typedef struct insn insn;   /* one guest instruction in it */
typedef struct info info;

typedef void on_translation(plugin_id, block *);
typedef void on_access(unsigned vcpu, uint32_t access, uint64_t address, void *data);
typedef void on_syscall(plugin_id, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                        uint64_t, uint64_t, uint64_t);

enum { INLINE_ADD = 0 };
enum { NO_REGISTERS = 0, READS_AND_WRITES = 3 };

extern size_t qemu_plugin_tb_n_insns(const block *);
extern uint64_t qemu_plugin_tb_vaddr(const block *);
extern insn *qemu_plugin_tb_get_insn(const block *, size_t);
extern const void *qemu_plugin_insn_data(const insn *);
extern unsigned qemu_plugin_mem_size_shift(uint32_t access);
extern bool qemu_plugin_mem_is_store(uint32_t access);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translation *);
extern void qemu_plugin_register_vcpu_tb_exec_inline(block *, int operation, void *, uint64_t);
extern void qemu_plugin_register_vcpu_mem_cb(insn *, on_access *, int registers, int kinds, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall *);

#define EXPORTED __attribute__((visibility("default")))

static FILE *report;

/* The tag of a marking system call, -1 for every other. */
static inline int mark_of(int64_t number)
{
    return number >= MARK && number < MARK + MARKS ? (int)(number - MARK) : -1;
}

/* Open the file of the argument out=FILE as `report`; false, with a message, where that cannot be done. */
static inline bool open_report(int argc, char **argv)
{
    for (int i = 0; i < argc; i++)
        if (strncmp(argv[i], "out=", 4) == 0)
            report = fopen(argv[i] + 4, "w");
    if (!report)
        fprintf(stderr, "plugin: out=FILE is missing or cannot be written\n");
    return report != NULL;
}

/* What a plugin does with translated code, and where a region ends and the next one begins. */
static void translated(plugin_id, block *);
static void print_region(int tag);
static void begin_region(void);

static void marked(plugin_id id, unsigned vcpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d,
                   uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)vcpu, (void)a, (void)b, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    int tag = mark_of(number);
    if (tag < 0)
        return;
    if (tag > 0) {
        print_region(tag);
        fflush(report);
    }
    begin_region();
}

EXPORTED int qemu_plugin_version = 1;

EXPORTED int qemu_plugin_install(plugin_id id, const info *machine, int argc, char **argv)
{
    (void)machine;
    if (!open_report(argc, argv))
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, marked);
    return 0;
}

#endif
