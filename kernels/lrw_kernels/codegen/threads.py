"""Parallel regions, on the OpenMP runtime the process has loaded already.

torch brings such a runtime. Using it, and not one of our own, means that there is one pool of threads: none of theirs
spins on a core we want, `torch.set_num_threads` and OMP_NUM_THREADS hold, and any number of Python threads may call.
Without one (or in a forked child, where the runtime's threads are gone) the calling thread does all the work.
"""

import ctypes
import os
import re
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrw_kernels.codegen import compiled, records
from lrw_kernels.codegen.kernel import REGIONS_KERNEL, WORK, WORK_KERNEL

_RUNTIME = re.compile(r"lib(gomp|iomp5|omp)\b.*\.so")
_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(kernel: int, job: int, items: int, scratch: int, scratch_bytes: int, threads: int) -> None:
    """Do an item kernel's items 0..items on up to `threads` threads, each with its slice of scratch."""
    start(records.Region(kernel, job, items, scratch, scratch_bytes, threads), threads)


def start(region: records.Region, threads: int) -> None:
    """`run` for a region that is filled in; it may have been run before."""
    region.arrived = region.next = 0
    parallel = _parallel() if threads > 1 and region.items > 1 and not _forked else None
    if parallel is None:
        compiled.callable_at(_worker(), WORK)(region.address)
    else:
        parallel(_worker(), region.address, min(threads, region.items), 0)


def start_all(first: int, count: int, threads: int) -> None:
    """`start` for so many regions, one after the other in memory from address `first` on, of which none was begun: in
    one call, so that threads are not woken for each, nor Python's lock taken."""
    parallel = _parallel() if threads > 1 and not _forked else None
    regions = records.Regions(first, count, 0 if parallel is None else _barrier())
    if parallel is None:
        compiled.callable_at(_all_worker(), WORK)(regions.address)
    else:
        parallel(_all_worker(), regions.address, threads, 0)


@lru_cache(maxsize=1)
def _worker() -> int:
    return WORK_KERNEL.address


@lru_cache(maxsize=1)
def _all_worker() -> int:
    return REGIONS_KERNEL.address


def _parallel() -> Any:
    """GOMP_parallel(function, data, threads, flags) of the loaded runtime; None where there is none."""
    return _runtime()[0]


def _barrier() -> int:
    """The address of its GOMP_barrier(), which returns once all threads of a parallel region have called it."""
    return _runtime()[1]


@lru_cache(maxsize=1)
def _runtime() -> tuple[Any, int]:
    """Both functions of the loaded runtime, which all of them offer on Linux."""
    for library in _loaded():
        entry, barrier = getattr(library, "GOMP_parallel", None), getattr(library, "GOMP_barrier", None)
        if entry is not None and barrier is not None:
            entry.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
            entry.restype = None
            return entry, ctypes.cast(barrier, ctypes.c_void_p).value or 0
    return None, 0


def _loaded() -> list[Any]:
    """The OpenMP runtimes of this process, torch's before copies other packages bring."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = dict.fromkeys(line.split(maxsplit=5)[5] for line in lines if line.count(" ") >= 5 and "/" in line)
    runtimes = [path for path in paths if _RUNTIME.match(Path(path).name)]
    found = []
    for path in sorted(runtimes, key=lambda path: "torch" not in path):
        with suppress(OSError):  # a file of that name that is only mapped is no code of this process, nor made so here
            found.append(ctypes.CDLL(path, mode=os.RTLD_NOLOAD))
    return found
