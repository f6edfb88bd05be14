/* Models two levels of data cache under a guest's loads and stores: a plugin for qemu-aarch64.
 *
 *   gcc -O2 -Wall -Wextra -Werror -shared -fPIC -o cache.so cache.c
 *   qemu-aarch64 -plugin ./cache.so,out=FILE PROGRAM
 *
 * Copyright (c) lrw contributors. SPDX-License-Identifier: MIT
 *
 * Level 1 has 64 KiB, 4 ways; level 2 has 512 KiB, 8 ways; lines of 64 bytes, least recently used goes first, what is
 * written is written back. No prefetcher, no instructions, no other core. FILE gets, for each region but 0,
 *
 *   region TAG accesses=N stores=N l1=N l2=N written_back=N
 *
 * accesses and stores are QEMU's, of at most 8 bytes; l1 and l2 are lines missed, written_back lines sent to memory.
 * The caches start empty at the first mark and keep their contents from region to region.
 */
#include "plugin.h"

enum { LINE_BITS = 6, KIB = 1024, LINES_1 = 64 * KIB >> LINE_BITS, LINES_2 = 512 * KIB >> LINE_BITS };

typedef struct line { uint64_t number; bool is_dirty; } line; /* number 0: empty */
typedef struct cache { size_t sets, ways; line *lines; } cache; /* sets: a power of two; latest way first */

enum level { L1, L2, LEVELS };

static struct { uint64_t accesses, stores, missed[LEVELS], written_back; } counts;
static line lines_1[LINES_1], lines_2[LINES_2];
static cache caches[LEVELS] = {{LINES_1 / 4, 4, lines_1}, {LINES_2 / 8, 8, lines_2}};
static bool is_counting;

/* Touch line `number`; true where it was there. Otherwise the way that was used least recently goes to *evicted. */
static bool touch(cache *where, uint64_t number, bool is_store, line *evicted)
{
    line *set = where->lines + (number & (where->sets - 1)) * where->ways;
    size_t way = 0;
    while (way < where->ways && set[way].number != number)
        way++;
    bool is_hit = way < where->ways;
    line latest = is_hit ? set[way] : (line){number, false};
    *evicted = is_hit ? (line){0} : set[--way];
    for (; way > 0; way--)
        set[way] = set[way - 1];
    set[0] = (line){number, latest.is_dirty || is_store};
    return is_hit;
}

static bool touch_l2(uint64_t number, bool is_store)
{
    line evicted;
    bool is_hit = touch(&caches[L2], number, is_store, &evicted);
    counts.written_back += evicted.is_dirty;
    return is_hit;
}

static void access_line(uint64_t number, bool is_store)
{
    line evicted;
    counts.accesses++;
    counts.stores += is_store;
    if (touch(&caches[L1], number, is_store, &evicted))
        return;
    counts.missed[L1]++;
    if (evicted.is_dirty)
        touch_l2(evicted.number, true);
    counts.missed[L2] += !touch_l2(number, false);
}

static void accessed(unsigned vcpu, uint32_t access, uint64_t address, void *data)
{
    (void)vcpu, (void)data;
    if (!is_counting)
        return;
    uint64_t bytes = 1u << qemu_plugin_mem_size_shift(access);
    uint64_t first = (address >> LINE_BITS) + 1, last = ((address + bytes - 1) >> LINE_BITS) + 1; /* 0 is empty */
    for (uint64_t number = first; number <= last; number++)
        access_line(number, qemu_plugin_mem_is_store(access));
}

static void translated(plugin_id id, block *code)
{
    (void)id;
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(code); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(code, i), accessed, NO_REGISTERS, READS_AND_WRITES,
                                         NULL);
}

static void print_region(int tag)
{
    fprintf(report, "region %d accesses=%" PRIu64 " stores=%" PRIu64, tag, counts.accesses, counts.stores);
    fprintf(report, " l1=%" PRIu64 " l2=%" PRIu64, counts.missed[L1], counts.missed[L2]);
    fprintf(report, " written_back=%" PRIu64 "\n", counts.written_back);
}

static void begin_region(void)
{
    memset(&counts, 0, sizeof counts);
    is_counting = true;
}
