"""Regions that are begun in one call: each item of each is done once, and none before all of the region before are."""

import ctypes

import numpy as np
import pytest

from lrw_kernels.codegen import threads
from lrw_kernels.codegen.records import Region, row

ITEMS = [5, 1, 7, 0, 3]
DONE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_one_region_after_the_other(workers: int) -> None:
    done = list[tuple[int, int]]()
    item = DONE(lambda job, item, _: done.append((job, item)))
    address = ctypes.cast(item, ctypes.c_void_p).value or 0
    regions = row([Region(address, job, items, 0, 0, workers) for job, items in enumerate(ITEMS)])
    threads.start_all(regions[0].address, 0, workers)
    assert not done
    threads.start_all(regions[0].address, len(regions), workers)
    assert [job for job, _ in done] == [job for job, items in enumerate(ITEMS) for _ in range(items)]
    assert sorted(done) == [(job, item) for job, items in enumerate(ITEMS) for item in range(items)]


def test_each_thread_has_its_slice_of_scratch_and_more_than_there_are_slices_do_nothing() -> None:
    slices, data = set[int](), np.zeros(64, np.uint8)
    item = DONE(lambda _, __, scratch: slices.add(scratch - data.ctypes.data))
    address = ctypes.cast(item, ctypes.c_void_p).value or 0
    regions = row([Region(address, 0, 50, data.ctypes.data, 16, 2) for _ in range(4)])
    threads.start_all(regions[0].address, len(regions), 4)
    assert slices <= {0, 16}
    assert slices
