"""What one thread of a parallel region does. Imports Numba."""

from lrw_kernels.codegen.intrinsics import ARRIVED_OFFSET, NEXT_OFFSET, call_range, region_at, take
from lrw_kernels.codegen.kernel import Function


def work_kernel() -> Function:
    """(region): what one thread does: take a slice of scratch, then items, `chunk` at a time, until none are left. More
    threads than slices leave at once."""
    next_offset, arrived_offset = NEXT_OFFSET, ARRIVED_OFFSET

    def work(address):
        region = region_at(address)
        slice = take(address + arrived_offset, 1)
        scratch = region.scratch + slice * region.scratch_bytes
        begin = take(address + next_offset, region.chunk) if slice < region.workers else region.items
        while begin < region.items:
            end = min(region.items, begin + region.chunk)
            call_range(region.kernel, region.job, begin, end, scratch)
            begin = take(address + next_offset, region.chunk)

    return work
