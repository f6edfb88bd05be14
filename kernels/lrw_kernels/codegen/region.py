"""What one thread of a parallel region does. Imports Numba."""

from ctypes import sizeof
from typing import Any

from lrw_kernels.codegen.intrinsics import (
    ARRIVED_OFFSET,
    NEXT_OFFSET,
    call_item,
    call_wait,
    region_at,
    regions_at,
    take,
)
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.records import Region
from lrw_kernels.codegen.settings import helper


def _work() -> Any:
    """(region), as a function for both kernels."""
    next_offset, arrived_offset = NEXT_OFFSET, ARRIVED_OFFSET

    def work(address):
        region = region_at(address)
        slice = take(address + arrived_offset, 1)
        scratch = region.scratch + slice * region.scratch_bytes
        item = take(address + next_offset, 1) if slice < region.workers else region.items
        while item < region.items:
            call_item(region.kernel, region.job, item, scratch)
            item = take(address + next_offset, 1)

    return work


def work_kernel() -> Function:
    """(region): what one thread does: take a slice of scratch, then item after item until none are left. More threads
    than slices leave at once."""
    work: Function = _work()
    return work


def regions_kernel() -> Function:
    """(regions): the same for one region after the other; all threads are done with one before any begins the next."""
    work, size = helper(_work()), sizeof(Region)

    def all_regions(address):
        regions = regions_at(address)
        for i in range(regions.count):
            if i > 0 and regions.wait != 0:
                call_wait(regions.wait)
            work(regions.first + i * size)

    return all_regions
