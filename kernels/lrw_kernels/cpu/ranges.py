"""The loops over work items, and what one thread of a region does; range kernels are (job, begin, end, scratch).

As in `kernels.py`, each function makes the Python function of one kernel, all in int64.
"""

from ctypes import sizeof

from lrw_kernels.codegen.intrinsics import copy_number, get, get_byte, put
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import BYTES
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.intrinsics import (
    blocks_at,
    call_products,
    call_transform,
    clear_at,
    digest_at,
    matrix_at,
    mix_stripes,
    mix_word,
    move_square,
    products_at,
    side_at,
    spin,
)
from lrw_kernels.cpu.kernels import clear
from lrw_kernels.cpu.mix import STRIPE
from lrw_kernels.cpu.records import Products, Side


@helper
def first_vector(p, panel):
    """The vector of C a panel of weights begins with: wide panels first, then those of one vector."""
    whole = p.vectors // p.panel_vectors
    return panel * p.panel_vectors if panel <= whole else whole * p.panel_vectors + panel - whole


@helper
def transform_tiles(s, side, base, begin, end, first, last, domain, scratch):
    """Tiles begin..end of the block that starts with tile `base`, one run for each grid row they touch."""
    slot = begin
    while slot < end:
        count = min(end - slot, s.grid_w - (base + slot) % s.grid_w)
        call_transform(s.kernel, side, base + slot, slot, count, first, last, domain, scratch)
        slot += count


def transform_range() -> Function:
    """Items are runs of `run` tiles x groups of `split` vectors, groups fastest."""

    def transforms(job, begin, end, scratch):
        s = side_at(job)
        groups = (s.vectors + s.split - 1) // s.split
        for item in range(begin, end):
            slot, first = (item // groups) * s.run, (item % groups) * s.split
            last = min(s.vectors, first + s.split)
            transform_tiles(
                s, job, s.base, slot, min(s.tiles, slot + s.run), first, last, s.domain + first * s.shift, scratch
            )

    return transforms


def products_range() -> Function:
    """Items are positions x groups of `split` panels, groups fastest."""

    def products(job, begin, end, scratch):
        p = products_at(job)
        groups = (p.panels + p.split - 1) // p.split
        for item in range(begin, end):
            first = (item % groups) * p.split
            last = min(p.panels, first + p.split)
            call_products(
                p.kernel, job, item // groups, p.tiles, first, last, p.v, p.m + first_vector(p, first) * p.m_vector
            )

    return products


def blocks_range() -> Function:
    """Items are blocks of tiles, each from input to output: V and M stay in this thread's scratch, and in its cache."""
    products_bytes, side_bytes = sizeof(Products), sizeof(Side)

    def blocks(job, begin, end, scratch):
        k = blocks_at(job)
        gather = side_at(k.gather)
        v, m, rest = scratch, scratch + k.m_at, scratch + k.scratch_at
        clear(scratch + k.zero_at, k.zero_bytes)
        for block in range(begin, end):
            base = block * k.tiles
            tiles = min(k.tiles, k.all_tiles - base)
            for first in range(0, gather.vectors, gather.split):
                last = min(gather.vectors, first + gather.split)
                transform_tiles(gather, k.gather, base, 0, tiles, first, last, v, rest)
            for group in range(k.groups):
                to_products, to_scatter = k.products + group * products_bytes, k.scatter + group * side_bytes
                products, scatter = products_at(to_products), side_at(to_scatter)
                for first in range(0, products.panels, k.panels):
                    last = min(products.panels, first + k.panels)
                    for position in range(products.positions):
                        call_products(products.kernel, to_products, position, tiles, first, last, v, m)
                    begin_vector, end_vector = first_vector(products, first), first_vector(products, last)
                    transform_tiles(scatter, to_scatter, base, 0, tiles, begin_vector, end_vector, m, rest)

    return blocks


def clear_range() -> Function:
    """One item: `records.Clear`."""

    def clears(job, begin, end, scratch):
        c = clear_at(job)
        clear(c.data, c.size)

    return clears


def matrix_range(element: str, lanes: int, transposed: bool) -> Function:
    """Items are pieces of matrices, columns fastest: `records.Matrix`."""
    size = BYTES[element]

    def matrices(job, begin, end, scratch):
        m = matrix_at(job)
        across, down = (m.columns + m.column_chunk - 1) // m.column_chunk, (m.rows + m.row_chunk - 1) // m.row_chunk
        for item in range(begin, end):
            j, i, outer = item % across, (item // across) % down, item // (across * down)
            rows = min(m.row_chunk, m.rows - i * m.row_chunk)
            columns = min(m.column_chunk, m.columns - j * m.column_chunk)
            source = m.source + outer * m.source_outer + i * m.row_chunk * m.source_row + j * m.column_chunk * size
            target = m.target + outer * m.target_outer + i * m.target_i + j * m.target_j
            right, below = (m.target_row, size) if transposed else (size, m.target_row)
            for r in range(0, rows, lanes):
                for c in range(0, columns, lanes):
                    to, at = target + r * below + c * right, source + r * m.source_row + c * size
                    if rows - r >= lanes and columns - c >= lanes:
                        move_square(transposed, element, lanes, to, m.target_row, at, m.source_row)
                    else:
                        for y in range(min(lanes, rows - r)):
                            for x in range(min(lanes, columns - c)):
                                copy_number(element, to + y * below + x * right, at + y * m.source_row + x * size)

    return matrices


def digest_range() -> Function:
    """Items are chunks: whole stripes by vectors, then words, then bytes. See `records.Digest`."""

    def digests(job, begin, end, scratch):
        d = digest_at(job)
        for item in range(begin, end):
            at, last = d.data + item * d.chunk, d.data + min(d.size, (item + 1) * d.chunk)
            stripes = (last - at) // STRIPE
            state = mix_stripes(at, stripes, item + 1)
            at += stripes * STRIPE
            while at + 8 <= last:
                state, at = mix_word(state, get(at)), at + 8
            while at < last:
                state, at = mix_word(state, get_byte(at)), at + 1
            put(d.hashes + 8 * item, state)

    return digests


def peak_kernel(text: str) -> Function:
    """(job, begin, end, scratch): fused multiply-adds in registers and nothing else; what a micro-kernel can reach."""

    def peak(job, begin, end, scratch):
        for _ in range(begin, end):
            spin(text, scratch)

    return peak
