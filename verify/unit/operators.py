"""For the operators' tests: buffers with guards around, steps run on this machine, what kernels may be made of."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.cpu import threads
from lrw_kernels.cpu.library import Kernel
from lrw_kernels.cpu.machine import NEON, host
from lrw_kernels.cpu.operators.step import Size, Step, View, view
from verify.strategies import Array

EPS = float(np.finfo(np.float32).eps)
GUARD = 7  # numbers before and after a buffer
every_machine = pytest.mark.parametrize("machine", [NEON, host()], ids=["neon", "host"])


class Buffer:
    """Activations of `size`, channels first..first + C of pixels that are `wider` channels longer, NaN around them.

    The memory ends with the last channel of the view, a page nobody may read follows; `check` demands that all but the
    view is as it was.
    """

    def __init__(self, size: Size, first: int, wider: int, values: Array | None = None) -> None:
        *outer, channels = size
        pixel = channels + wider
        count = int(np.prod(outer)) * pixel - (wider - first)
        self._memory = _Fenced(count)
        numbers = self._memory.numbers
        numbers[:] = np.nan
        whole = np.lib.stride_tricks.as_strided(
            numbers[first:],
            size,
            [4 * pixel * int(np.prod(outer[i + 1 :])) for i in range(4)] + [4],
        )
        self.numbers, self._all = whole, numbers
        if values is not None:
            whole[...] = values
        self.view: View = view(numbers.ctypes.data + 4 * first, size, pixel)

    def check(self) -> Array:
        """The view's numbers; everything around is still NaN, everything inside has been written."""
        values = self.numbers.astype(np.float64)
        self.numbers[...] = np.nan
        assert np.isnan(self._all).all(), "written outside"
        return values


class _Fenced:
    """float32 numbers that end where a page without access begins."""

    def __init__(self, count: int) -> None:
        size = -(-count * 4 // 4096) * 4096
        libc = ctypes.CDLL(None)
        libc.mmap.restype = ctypes.c_void_p
        self.address = libc.mmap(None, ctypes.c_size_t(size + 4096), 3, 0x22, -1, ctypes.c_long(0))
        self._size, self._unmap = size + 4096, libc.munmap
        assert libc.mprotect(ctypes.c_void_p(self.address + size), ctypes.c_size_t(4096), 0) == 0
        start = self.address + size - 4 * count
        self.numbers = np.ctypeslib.as_array((ctypes.c_float * count).from_address(start))

    def __del__(self) -> None:
        self._unmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self._size))


def run(steps: Sequence[Step], chunk: int = 1, workers: int = 1) -> None:
    """Do the steps in order; a thread takes `chunk` items at a time, scratch starts as NaN."""
    for step in steps:
        scratch = np.full(workers * step.scratch_bytes // 4 + 16, np.nan, np.float32)
        address = -(-scratch.ctypes.data // 64) * 64
        kernel = step.kernel.address
        threads.run(kernel, step.record.address, step.items, chunk, address, step.scratch_bytes, workers)


def assert_lowers(kernels: Collection[Kernel]) -> None:
    """Each is lowered to an aarch64 object that needs nothing; in a process of its own, as `aarch64.lower` does it."""
    texts = json.dumps(sorted((kernel.text, kernel.count) for kernel in kernels))
    environment = {**os.environ, "NUMBA_OPT": "0", "NUMBA_LOOP_VECTORIZE": "0"}
    environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("operators_lowered.py")), texts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["lowered"] * len(kernels)
