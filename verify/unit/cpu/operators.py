"""For the operators' tests: buffers with guards around, steps run on this machine, what kernels may be made of."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import NEON, host
from lrw_kernels.cpu.step import Size, Steps, View, view
from lrw_kernels.network.operators import Pointwise
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.collect import Collector
from verify.strategies import Array

EPS = float(np.finfo(np.float32).eps)
every_machine = pytest.mark.parametrize("machine", [NEON, host()], ids=["neon", "host"])


Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Input:
    """An input on which something is computed, in some channels of wider ones, by some threads."""

    size: tuple[int, int, int, int, int]
    wider: tuple[int, int]
    threads: int
    seed: int

    @property
    def x(self) -> Array:
        """Standard normal float32 [N, D, H, W, C]."""
        return np.random.default_rng(self.seed).standard_normal(self.size).astype(np.float32)


def triples(low: int, high: int) -> st.SearchStrategy[Triple]:
    return st.tuples(*[st.integers(low, high)] * 3)


inputs = st.builds(
    lambda n, size, c, wider, threads, seed: Input((n, *size, c), wider, threads, seed),
    st.integers(1, 2),
    triples(1, 7),
    st.sampled_from([1, 2, 3, 4, 7, 8, 16, 19, 32, 67]),
    st.sampled_from([(0, 0), (0, 3), (2, 5), (4, 4)]),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1),
)


def to_torch(x: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).double().permute(0, 4, 1, 2, 3)


def from_torch(y: torch.Tensor) -> Array:
    return y.permute(0, 2, 3, 4, 1).numpy()


class Buffer:
    """Activations of `size`, channels first..first + C of pixels that are `wider` channels longer, NaN around them.

    The memory ends with the last channel of the view, a page nobody may read follows; `check` demands that all but the
    view is as it was.
    """

    def __init__(self, size: Size, first: int, wider: int, values: Array | None = None) -> None:
        *outer, channels = size
        pixel = channels + wider
        count = int(np.prod(outer)) * pixel - (wider - first)
        self._memory = Fenced(count)
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


class Fenced:
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


def run(made: Steps, threads: int = 1, *, in_place: bool = False) -> None:
    """Do the steps in order; scratch starts as NaN."""
    to = Collector(threads, in_place=in_place)
    to.add(0, made)
    program = to.program("", ())
    scratch = np.full(program.buffer_bytes // 4 + 16, np.nan, np.float32)
    Bound(program, placed(program)).run(-(-scratch.ctypes.data // 64) * 64, (), threads)


def assert_lowers(made: Iterable[Steps]) -> None:
    """Each kernel of the steps is lowered to an aarch64 object that needs nothing; in a process of its own, as
    `aot.lower` does it."""
    kernels = {step.kernel for of in made for step in of.steps}
    texts = json.dumps(sorted((kernel.text, kernel.count) for kernel in kernels))
    environment = {**os.environ, "NUMBA_OPT": "0", "NUMBA_LOOP_VECTORIZE": "0"}
    environment |= {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("operators_lowered.py")), texts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["lowered"] * len(kernels)


functions = st.sampled_from(["", "relu", "leaky_relu", "prelu"])  # that may follow


def followed(function: str, channels: int) -> tuple[Pointwise | None, Array]:
    """One of `functions`, and its slopes below 0, of all channels or of every one."""
    drawn = np.random.default_rng(2).standard_normal(channels).astype(np.float32)
    slopes = {"": np.ones(1, np.float32), "relu": np.zeros(1, np.float32), "leaky_relu": drawn[:1], "prelu": drawn}
    parameters = () if function == "relu" else tuple(slopes[function].tolist())
    return Pointwise(function, parameters) if function else None, slopes[function]
