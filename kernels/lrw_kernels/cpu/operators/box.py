"""Output pixels that meet the same taps, those inside of the input, are a box: in the middle all taps, at the borders
fewer."""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.emit_boxes import heights
from lrw_kernels.cpu.operators.grid import Grid
from lrw_kernels.cpu.operators.taps import Taps
from lrw_kernels.cpu.step import Strides, View

FEW_ROWS = 4  # are no faster than so many: the next product of a sum waits for the one before
Entries = npt.NDArray[np.int64]


class Axis(NamedTuple):
    """Output pixels along an axis: how many, and bytes from one to the next in x, y and residual."""

    length: int
    x: int = 0
    y: int = 0
    residual: int = 0


class Interval(NamedTuple):
    """Outputs of an axis that meet the same taps: the first, how many, the taps."""

    first: int
    length: int
    taps: Taps


class Box(NamedTuple):
    """Output pixels along four axes, their line first, from addresses of x, y and residual on; the taps they meet."""

    first: tuple[int, int, int]
    axes: tuple[Axis, ...]
    taps: tuple[Taps, ...]

    @property
    def pixels(self) -> int:
        """How many there are."""
        return prod(axis.length for axis in self.axes)

    def height(self, rows: int) -> int:
        """Pixels of a block, of up to `rows`, by which lines take least time."""
        count = self.axes[0].length
        fitting = [height for height in heights(rows) if height <= count]
        return min(fitting, key=lambda height: ceil(count / height) * (max(height, FEW_ROWS) + 1))

    def blocks(self, rows: int) -> int:
        """How many blocks there are."""
        line, *others = self.axes
        return ceil(line.length / self.height(rows)) * prod(axis.length for axis in others)


def boxes(x: View, y: View, grid: Grid, residual: View | None) -> Iterator[Box]:
    """All output pixels of a convolution of x to y, which a residual is added to."""
    axes = zip(y.size[1:4], x.size[1:4], grid.start, grid.step, grid.taps, strict=True)
    outputs = (y, residual) if residual else (y, View(0, (0, 0, 0, 0), y.size))
    for parts in product(*(intervals(*axis) for axis in axes)):
        inputs = [
            part.first * by + start + part.taps[0][1] if part.taps else 0
            for part, by, start in zip(parts, grid.step, grid.start, strict=True)
        ]
        firsts = [part.first for part in parts]
        met = all(part.taps for part in parts)  # else nothing is read, from any address
        first = _pixel(x, inputs) if met else x.address, _pixel(outputs[0], firsts), _pixel(outputs[1], firsts)
        along = [Axis(y.size[0], x.strides[0], *(of.strides[0] for of in outputs))]
        for i, part in enumerate(parts, 1):
            along.append(Axis(part.length, grid.step[i - 1] * x.strides[i], *(of.strides[i] for of in outputs)))
        yield Box(first, _merged(along), tuple(part.taps for part in parts))


def _pixel(of: View, at: Sequence[int]) -> int:
    """The address of a pixel of the first sample."""
    return of.address + sum(i * by for i, by in zip(at, of.strides[1:], strict=True))


def intervals(outputs: int, size: int, start: int, step: int, taps: Taps) -> list[Interval]:
    """The outputs of an axis by the taps they meet."""
    met = [tuple(tap for tap in taps if 0 <= start + step * o + tap[1] < size) for o in range(outputs)]
    changes = [o for o in range(outputs) if o == 0 or met[o] != met[o - 1]]
    return [Interval(at, end - at, met[at]) for at, end in zip(changes, [*changes[1:], outputs], strict=True)]


def _merged(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Four axes, the last ones first, but for the line, which is the longest. Those that follow one another in all
    memory are one."""
    merged = [Axis(1)]
    for axis in reversed(axes):
        last = merged[-1]
        if last.length == 1:
            merged[-1] = axis
        elif axis[1:] == tuple(last.length * by for by in last[1:]):
            merged[-1] = last._replace(length=last.length * axis.length)
        elif axis.length > 1:
            merged.append(axis)
    merged += [Axis(1)] * (4 - len(merged))
    longest = max(range(4), key=lambda i: merged[i].length)
    return (merged[longest], *merged[:longest], *merged[longest + 1 :])


def entries(
    taps: Sequence[Taps], used: Sequence[Sequence[int]], strides: Strides, cin: int, lanes: int
) -> tuple[Entries, Entries]:
    """(runs, singles) of the sum of pixels that meet `taps`: see `records.Box`. Rows of weights are those of taps
    `used` along each axis."""
    at, row = np.zeros(1, np.int64), np.zeros(1, np.int64)
    for axis, of, by in zip(taps, used, strides[1:], strict=True):
        at = np.add.outer(at, [(offset - axis[0][1]) * by for _, offset in axis]).ravel()
        row = np.add.outer(row * len(of), [of.index(k) for k, _ in axis]).ravel()
    numbers = np.stack([np.add.outer(at, FLOAT * np.arange(cin)), np.add.outer(row * cin, np.arange(cin))], axis=-1)
    numbers = numbers.reshape(-1, 2)
    apart = np.flatnonzero((np.diff(numbers, axis=0) != (FLOAT, 1)).any(axis=1)) + 1
    pieces = np.split(numbers, apart)
    whole = [len(piece) // lanes * lanes for piece in pieces]
    runs = [piece[:end:lanes] for piece, end in zip(pieces, whole, strict=True)]
    return np.concatenate(runs), np.concatenate([piece[end:] for piece, end in zip(pieces, whole, strict=True)])
