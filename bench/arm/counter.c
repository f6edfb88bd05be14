/* Counts how often each block of a guest's A64 instructions ran, by region: a plugin for qemu-aarch64.
 *
 *   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o counter.so counter.c
 *   qemu-aarch64 -plugin ./counter.so,out=FILE PROGRAM
 *
 * Copyright (c) lrw contributors. SPDX-License-Identifier: MIT
 *
 * What runs is one inline increment per block, so counting is nearly free. Those increments are not atomic: the guest
 * must be of one thread. FILE gets, for each region but 0,
 *
 *   region TAG
 *   block TAG ADDRESS EXECUTIONS WORD...  each block that ran; all numbers but TAG and EXECUTIONS hexadecimal
 */
#include "plugin.h"

typedef struct record {
    struct record *next;
    uint64_t executions, before; /* all, and those of earlier regions */
    uint64_t address;
    size_t length;
    uint32_t *words;
} record;

static record *records;

static void *allocated(size_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory)
        abort();
    return memory;
}

static void translated(plugin_id id, block *code)
{
    (void)id;
    record *made = allocated(sizeof *made);
    made->address = qemu_plugin_tb_vaddr(code);
    made->length = qemu_plugin_tb_n_insns(code);
    made->words = allocated(made->length * sizeof *made->words);
    for (size_t i = 0; i < made->length; i++)
        memcpy(&made->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(code, i)), sizeof *made->words);
    made->next = records;
    records = made;
    qemu_plugin_register_vcpu_tb_exec_inline(code, INLINE_ADD, &made->executions, 1);
}

static void print_region(int tag)
{
    fprintf(report, "region %d\n", tag);
    for (const record *r = records; r; r = r->next) {
        if (r->executions == r->before)
            continue;
        fprintf(report, "block %d %" PRIx64 " %" PRIu64, tag, r->address, r->executions - r->before);
        for (size_t i = 0; i < r->length; i++)
            fprintf(report, " %08" PRIx32, r->words[i]);
        fputc('\n', report);
    }
}

static void begin_region(void)
{
    for (record *r = records; r; r = r->next)
        r->before = r->executions;
}
