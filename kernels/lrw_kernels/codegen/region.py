"""What one thread of a parallel region does. Imports Numba."""

from lrw_kernels.codegen.intrinsics import ARRIVED_OFFSET, NEXT_OFFSET, call_item, region_at, take
from lrw_kernels.codegen.kernel import Function


def work_kernel() -> Function:
    """(region): what one thread does: take a slice of scratch, then item after item until none are left. More threads
    than slices leave at once."""
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
