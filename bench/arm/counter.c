/* Counts the executed A64 instructions of a guest exactly, by class and by region: a plugin for qemu-aarch64.
 *
 *   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o counter.so counter.c
 *   qemu-aarch64 -plugin ./counter.so,out=FILE PROGRAM
 *
 * Copyright (c) lrw contributors. SPDX-License-Identifier: MIT
 *
 * Instructions are decoded once, at translation; what runs is one inline increment per block, so counting is nearly
 * free. Those increments are not atomic: the guest must be of one thread. FILE gets, for each region but 0,
 *
 *   region TAG total=N fma=N ...          executed instructions of each class; *_bytes are bytes
 *   block TAG ADDRESS EXECUTIONS WORD...  each block that ran; all numbers but TAG and EXECUTIONS hexadecimal
 */
#include "plugin.h"

enum kind {
    TOTAL, FMA, FMA16, MULTIPLY, ADD, SCALAR_FMA, MATRIX, DOT, SVE, OTHER_VECTOR,
    LOADS, VECTOR_LOADS, LOAD_BYTES, STORES, VECTOR_STORES, STORE_BYTES, PREFETCHES, BRANCHES, KINDS
};

static const char *const names[KINDS] = {
    "total", "fma", "fma16", "multiply", "add", "scalar_fma", "matrix", "dot", "sve", "other_vector",
    "loads", "vector_loads", "load_bytes", "stores", "vector_stores", "store_bytes", "prefetches", "branches",
};

/* Words of the floating-point and vector group that are told apart: word & mask == value. */
static const struct pattern { uint32_t mask, value; enum kind kind; } patterns[] = {
    {0xFF000000, 0x1F000000, SCALAR_FMA},
    {0xBFA0FC00, 0x0E20CC00, FMA},      /* fmla v, v, v */
    {0xBFA0FC00, 0x0EA0CC00, FMA},      /* fmls */
    {0xBF80B400, 0x0F801000, FMA},      /* fmla, fmls by element */
    {0xBFE0FC00, 0x0E400C00, FMA16},    /* fmla of halves */
    {0xBFE0FC00, 0x0EC00C00, FMA16},    /* fmls */
    {0xBFC0B400, 0x0F001000, FMA16},    /* both by element */
    {0xBFA0FC00, 0x0E20EC00, FMA16},    /* fmlal, fmlsl */
    {0xBFA0FC00, 0x2E20CC00, FMA16},    /* fmlal2, fmlsl2 */
    {0xBFC0B400, 0x0F800000, FMA16},    /* the same by element */
    {0xBFC0B400, 0x2F808000, FMA16},
    {0xFFE0FC00, 0x6E40EC00, MATRIX},   /* bfmmla */
    {0xBFE0FC00, 0x2E40FC00, MATRIX},   /* bfdot */
    {0xBFE0FC00, 0x2EC0FC00, MATRIX},   /* bfmlal */
    {0x9FA0FC00, 0x0E809400, DOT},      /* sdot, udot */
    {0x9F00F400, 0x0F00E000, DOT},      /* by element */
    {0xFFE0F400, 0x4E80A400, DOT},      /* smmla, usmmla */
    {0xBFA0FC00, 0x2E20DC00, MULTIPLY}, /* fmul */
    {0xBF80F400, 0x0F809000, MULTIPLY}, /* by element */
    {0xBFA0FC00, 0x0E20D400, ADD},      /* fadd */
    {0xBFA0FC00, 0x0EA0D400, ADD},      /* fsub */
};

typedef struct record {
    struct record *next;
    uint64_t executions, before; /* all, and those of earlier regions */
    uint64_t address;
    size_t length;
    uint32_t *words;
    uint32_t counts[KINDS]; /* of one execution */
} record;

struct access { bool is_prefetch, is_load, is_vector; uint32_t bytes; };

static record *records;

static uint32_t bits(uint32_t word, int low, int count)
{
    return (word >> low) & ((1u << count) - 1);
}

/* ld1 to ld4, st1 to st4: of whole registers, of one lane, or replicated. */
static uint32_t structure_bytes(uint32_t word)
{
    static const uint32_t registers[16] = {[0] = 4, [2] = 4, [4] = 3, [6] = 3, [7] = 1, [8] = 2, [10] = 2};
    if (!bits(word, 24, 1))
        return registers[bits(word, 12, 4)] * (8u << bits(word, 30, 1));
    uint32_t elements = 2 * bits(word, 13, 1) + bits(word, 21, 1) + 1, scale = bits(word, 14, 2);
    if (scale == 3)
        scale = bits(word, 10, 2);
    else if (scale == 2)
        scale += bits(word, 10, 1);
    return elements << scale;
}

static struct access exclusive_or_structure(uint32_t word)
{
    struct access access = {false, bits(word, 22, 1), bits(word, 26, 1), 1u << bits(word, 30, 2)};
    if (access.is_vector)
        access.bytes = structure_bytes(word);
    else if (bits(word, 21, 1) && !bits(word, 23, 1)) /* ldxp, stxp, casp */
        access.bytes *= 2;
    return access;
}

static struct access literal(uint32_t word)
{
    uint32_t size = bits(word, 30, 2), is_vector = bits(word, 26, 1);
    if (bits(word, 24, 1)) /* ldapur, stlur */
        return (struct access){false, bits(word, 22, 2) != 0, false, 1u << size};
    return (struct access){size == 3 && !is_vector, true, is_vector, is_vector ? 4u << size : size == 1 ? 8 : 4};
}

static struct access pair(uint32_t word)
{
    uint32_t size = bits(word, 30, 2), is_vector = bits(word, 26, 1);
    return (struct access){false, bits(word, 22, 1), is_vector, 2 * (is_vector ? 4u << size : size & 2 ? 8 : 4)};
}

static struct access one_register(uint32_t word)
{
    uint32_t size = bits(word, 30, 2), operation = bits(word, 22, 2);
    if (bits(word, 26, 1))
        return (struct access){false, operation & 1, true, operation & 2 ? 16 : 1u << size};
    bool is_atomic = !bits(word, 24, 1) && bits(word, 21, 1) && bits(word, 10, 2) == 0;
    bool is_prefetch = !is_atomic && size == 3 && operation == 2;
    return (struct access){is_prefetch, is_atomic || operation != 0, false, 1u << size};
}

static struct access memory_access(uint32_t word)
{
    switch (bits(word, 27, 3)) {
    case 1: return exclusive_or_structure(word);
    case 3: return literal(word);
    case 5: return pair(word);
    default: return one_register(word);
    }
}

static void count_access(struct access access, uint32_t *counts)
{
    if (access.is_prefetch) {
        counts[PREFETCHES]++;
        return;
    }
    counts[access.is_load ? LOADS : STORES]++;
    counts[access.is_load ? VECTOR_LOADS : VECTOR_STORES] += access.is_vector;
    counts[access.is_load ? LOAD_BYTES : STORE_BYTES] += access.bytes;
}

static enum kind vector_kind(uint32_t word)
{
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++)
        if ((word & patterns[i].mask) == patterns[i].value)
            return patterns[i].kind;
    return OTHER_VECTOR;
}

/* Add one execution of `word` to `counts`. The four bits from 25 on say which group it belongs to. */
static void count_word(uint32_t word, uint32_t *counts)
{
    uint32_t group = bits(word, 25, 4);
    bool is_system = bits(word, 22, 10) == 0x354; /* mrs, hints, barriers: in the branches' group */
    counts[TOTAL]++;
    if (group == 2)
        counts[SVE]++;
    else if ((group & 5) == 4)
        count_access(memory_access(word), counts);
    else if ((group & 7) == 7)
        counts[vector_kind(word)]++;
    else if ((group & 14) == 10 && !is_system)
        counts[BRANCHES]++;
}

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
    for (size_t i = 0; i < made->length; i++) {
        memcpy(&made->words[i], qemu_plugin_insn_data(qemu_plugin_tb_get_insn(code, i)), sizeof *made->words);
        count_word(made->words[i], made->counts);
    }
    made->next = records;
    records = made;
    qemu_plugin_register_vcpu_tb_exec_inline(code, INLINE_ADD, &made->executions, 1);
}

static void print_counts(int tag)
{
    uint64_t sums[KINDS] = {0};
    for (const record *r = records; r; r = r->next)
        for (int kind = 0; kind < KINDS; kind++)
            sums[kind] += (r->executions - r->before) * r->counts[kind];
    fprintf(report, "region %d", tag);
    for (int kind = 0; kind < KINDS; kind++)
        fprintf(report, " %s=%" PRIu64, names[kind], sums[kind]);
    fputc('\n', report);
}

static void print_blocks(int tag)
{
    for (const record *r = records; r; r = r->next) {
        if (r->executions == r->before)
            continue;
        fprintf(report, "block %d %" PRIx64 " %" PRIu64, tag, r->address, r->executions - r->before);
        for (size_t i = 0; i < r->length; i++)
            fprintf(report, " %08" PRIx32, r->words[i]);
        fputc('\n', report);
    }
}

static void print_region(int tag)
{
    print_counts(tag);
    print_blocks(tag);
}

static void begin_region(void)
{
    for (record *r = records; r; r = r->next)
        r->before = r->executions;
}
