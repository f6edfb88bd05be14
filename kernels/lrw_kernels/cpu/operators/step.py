"""What a builder takes and gives: views of activations, and steps to run."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE, Machine
from lrw_kernels.codegen.records import Record
from lrw_kernels.cpu.operators.records import FLOAT

Size = tuple[int, int, int, int, int]
Strides = tuple[int, int, int, int]
ITEMS = 16  # work items at least, where there is enough to share out


class View(NamedTuple):
    """Activations [N, D, H, W, C], C contiguous, at an address; bytes from sample to sample, plane to plane, row to
    row, pixel to pixel. They may be some channels of a wider buffer."""

    address: int
    strides: Strides
    size: Size

    @property
    def channels(self) -> int:
        """C."""
        return self.size[4]

    @property
    def pixels(self) -> int:
        """N * D * H * W."""
        return prod(self.size[:4])

    def some(self, first: int, count: int) -> "View":
        """Channels first..first + count."""
        return View(self.address + first * FLOAT, self.strides, (*self.size[:4], count))

    def merged(self) -> tuple[Sequence[int], Sequence[int]]:
        """Sizes and strides of n, d, h, w with as many pixels as possible in w, the others moved out of the way."""
        sizes, strides = [*self.size[:4]], [*self.strides]
        for axis in (2, 1, 0):
            if strides[axis] != sizes[3] * strides[3] and sizes[axis] != 1:
                break
            sizes[3] *= sizes[axis]
            sizes[axis] = 1
        return sizes, strides

    @property
    def dense(self) -> bool:
        """Whether it is one piece of memory."""
        sizes, strides = self.merged()
        return sizes[:3] == [1, 1, 1] and strides[3] == self.channels * FLOAT


def view(address: int, size: Size, channels: int | None = None) -> View:
    """The view of `size` at `address` in a buffer of so many `channels`, dense otherwise."""
    _, d, h, w, c = size
    pixel = FLOAT * (c if channels is None else channels)
    return View(address, (pixel * w * h * d, pixel * w * h, pixel * w, pixel), size)


class Step(NamedTuple):
    """One parallel region: a range kernel, its record, so many items, bytes of scratch for each thread.

    `tables` are the arrays whose addresses the record holds. Steps of one operator follow one another.
    """

    kernel: Kernel
    record: Record
    items: int
    scratch_bytes: int = 0
    tables: tuple[npt.NDArray[Any], ...] = ()


def integers(values: Sequence[int]) -> npt.NDArray[np.int64]:
    """A table of int64; never empty, so that it has an address."""
    return np.array(values if len(values) else [0], np.int64)


def at(table: npt.NDArray[Any]) -> int:
    """Where a table lies."""
    return int(table.ctypes.data)


def rounded(size: int) -> int:
    """Up to whole cache lines."""
    return -(-size // LINE) * LINE


def strides(prefix: str, of: View) -> dict[str, int]:
    """Address and strides as a record's fields: prefix, prefix_n, prefix_d, prefix_h, prefix_w."""
    names = [prefix, *(f"{prefix}_{axis}" for axis in "ndhw")]
    return dict(zip(names, (of.address, *of.strides), strict=True))


def share_channels(y: View, machine: Machine) -> tuple[int, int]:
    """Rows of output pixels, and the channels of one a work item takes: whole vectors, all where rows are enough."""
    rows, lanes = prod(y.size[:3]), machine.lanes("float32")
    vectors = -(-y.channels // lanes)
    return rows, lanes * max(1, vectors * rows // ITEMS if rows < ITEMS else vectors)
