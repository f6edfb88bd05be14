"""What a thread does for one work item of a region; item kernels are (job, item, scratch).

As in `kernels.py`, each function makes the Python function of one kernel, all in int64.
"""

from ctypes import sizeof

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import clear, first_vector
from lrw_kernels.cpu.winograd.intrinsics import call_products, call_transform, products_at, tiles_at, transform_at
from lrw_kernels.cpu.winograd.records import Products, Transform


@helper
def transform_tiles(s, side, base, begin, end, first, last, domain, scratch):
    """Tiles begin..end of the turn that starts with tile `base`, one run for each grid row they touch."""
    slot = begin
    while slot < end:
        count = min(end - slot, s.grid_w - (base + slot) % s.grid_w)
        call_transform(s.kernel, side, base + slot, slot, count, first, last, domain, scratch)
        slot += count


def transform_item() -> Function:
    """Items are runs of `run` tiles x groups of `split` vectors, groups fastest."""

    def transforms(job, item, scratch):
        s = transform_at(job)
        groups = (s.vectors + s.split - 1) // s.split
        slot, first = (item // groups) * s.run, (item % groups) * s.split
        last = min(s.vectors, first + s.split)
        transform_tiles(
            s, job, s.base, slot, min(s.tiles, slot + s.run), first, last, s.domain + first * s.shift, scratch
        )

    return transforms


def products_item() -> Function:
    """Items are positions x groups of `split` panels, groups fastest."""

    def products(job, item, scratch):
        p = products_at(job)
        groups = (p.panels + p.split - 1) // p.split
        first = (item % groups) * p.split
        last = min(p.panels, first + p.split)
        call_products(
            p.kernel, job, item // groups, p.tiles, first, last, p.v, p.m + first_vector(p, first) * p.m_vector
        )

    return products


def tiles_item() -> Function:
    """Items are turns of tiles, from input to output: V and M stay in this thread's scratch, and in its cache."""
    products_bytes, side_bytes = sizeof(Products), sizeof(Transform)

    def turns(job, item, scratch):
        k = tiles_at(job)
        gather = transform_at(k.gather)
        v, m, rest = scratch + k.v_at, scratch + k.m_at, scratch + k.scratch_at
        clear(m, k.zero_bytes)
        base = item * k.tiles
        tiles = min(k.tiles, k.all_tiles - base)
        transform_tiles(gather, k.gather, base, 0, tiles, 0, gather.vectors, v, rest)
        for part in range(k.parts):
            to_products, to_scatter = k.products + part * products_bytes, k.scatter + part * side_bytes
            products, scatter = products_at(to_products), transform_at(to_scatter)
            for first in range(0, products.panels, k.panels):
                last = min(products.panels, first + k.panels)
                for position in range(products.positions):
                    call_products(products.kernel, to_products, position, tiles, first, last, v, m)
                begin_vector, end_vector = first_vector(products, first), first_vector(products, last)
                transform_tiles(scatter, to_scatter, base, 0, tiles, begin_vector, end_vector, m, rest)

    return turns
