"""What kernels know of a tile and its kept positions: compile-time matrices, and small tables on the device.

Tables are never given up: a CUDA graph may hold their addresses. Each is a few kilobytes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np
import torch
from torch import Tensor

from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile, Transform

Matrix = tuple[tuple[float, ...], ...]
STRAIGHT = 81  # positions of a plane for which there is straight code; that of more takes minutes to compile
UNROLLED_TAPS = 2  # rows with more inputs are gone through by a loop: the code of all at once takes minutes to compile


@dataclass(frozen=True)
class Gather:
    """From patches to the domain, by a matrix [positions, inputs] an axis; tensors as `transforms.gather` has them."""

    slots: Tensor
    rows: Tensor
    taps: Tensor
    factors: Tensor
    heights: Tensor
    row_count: int
    most_taps: int
    h: Matrix
    w: Matrix
    signs: bool
    """Whether all factors are 0, 1 and -1: adding up is all there is to do."""

    @property
    def unrolled(self) -> bool:
        """Whether a row's inputs along d are few enough for straight code."""
        return self.most_taps <= UNROLLED_TAPS

    @property
    def rolled(self) -> bool:
        """Whether a plane's positions are too many for straight code."""
        return len(self.h) * len(self.w) > STRAIGHT

    def packed(self, precision: Precision) -> bool:
        """Whether sums are of 16-bit numbers, two at a time: each is rounded, which their multiples would not stand."""
        return self.signs and precision == "half"


@dataclass(frozen=True)
class Scatter:
    """The way back, by matrices [positions, outputs]; tensors as `transforms.scatter` has them. The columns of `h` and
    `w`, filled with zeros, are whole cells."""

    slots: Tensor
    rows: Tensor
    shifts: Tensor
    factors: Tensor
    heights: Tensor
    row_count: int
    h: Matrix
    w: Matrix
    reach: int
    """How many tiles of a plane add to a cell."""

    @property
    def rolled(self) -> bool:
        """Whether there is a loop along h: where several tiles add, or a plane's positions are too many for straight
        code."""
        return self.reach > 1 or len(self.h) * len(self.w) > STRAIGHT


@cache
def gather(tile: str, name: str, positions: tuple[int, ...], device: torch.device) -> Gather:
    """By matrices `name` ("B" of inputs, "A" of gradients of outputs) to the positions, the s-th of which is slot s."""
    axes = Tile.parse(tile).axes
    d, h, w = axes
    live = _live(tile, positions)
    lists = [[(k, float(v)) for k, v in enumerate(row) if v] for row in getattr(d, name)]
    most = max(map(len, lists))
    padded = [row + [(row[0][0] if row else 0, 0.0)] * (most - len(row)) for row in lists]
    return Gather(
        _slots(tile, positions, device),
        _integers(live, device),
        _integers([[k for k, _ in row] for row in padded], device),
        _numbers([[v for _, v in row] for row in padded], device),
        _numbers(_matrix(h, name), device),
        len(live),
        most,
        _matrix(h, name),
        _matrix(w, name),
        {value for axis in axes for row in _matrix(axis, name) for value in row} <= {-1.0, 0.0, 1.0},
    )


@cache
def scatter(tile: str, name: str, positions: tuple[int, ...], device: torch.device) -> Scatter:
    """By matrices `name` ("A" to outputs, "B" to gradients of inputs) from the positions, the s-th of which is slot
    s."""
    axes = Tile.parse(tile).axes
    d, h, w = (_filled(axis, name) for axis in axes)
    shifts = [len(matrix[0]) // axis.m for matrix, axis in zip((d, h, w), axes, strict=True)]
    runs = [[row[s * axes[0].m : (s + 1) * axes[0].m] for row in d] for s in range(shifts[0])]
    pairs = [(s, i) for s in range(shifts[0]) for i in _live(tile, positions) if any(runs[s][i])]
    return Scatter(
        _slots(tile, positions, device),
        _integers([i for _, i in pairs], device),
        _integers([s for s, _ in pairs], device),
        _numbers([runs[s][i] for s, i in pairs], device),
        _numbers(h, device),
        len(pairs),
        h,
        w,
        shifts[1] * shifts[2],
    )


@cache
def output_factors(tile: str, positions: tuple[int, ...], device: torch.device) -> Tensor:
    """[K, m_d * m_h * m_w]: what position p adds to each output of its tile."""
    d, h, w = (axis.array("A") for axis in Tile.parse(tile).axes)
    return _numbers(np.kron(np.kron(d, h), w)[list(positions)], device)


def _live(tile: str, positions: tuple[int, ...]) -> list[int]:
    """Rows along d where a position is kept."""
    return sorted({p // prod(Tile.parse(tile).inputs[1:]) for p in positions})


def _slots(tile: str, positions: tuple[int, ...], device: torch.device) -> Tensor:
    slots = np.full(Tile.parse(tile).positions, -1)
    slots[list(positions)] = np.arange(len(positions))
    return _integers(slots, device)


def _matrix(axis: Transform, name: str) -> Matrix:
    return tuple(tuple(map(float, row)) for row in getattr(axis, name))


def _filled(axis: Transform, name: str) -> Matrix:
    """The matrix, its columns filled with zeros to a multiple of m."""
    rows = _matrix(axis, name)
    return tuple(row + (0.0,) * (-len(row) % axis.m) for row in rows)


def _integers(values: Sequence[object] | np.ndarray, device: torch.device) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.int32, device=device)


def _numbers(values: Sequence[object] | np.ndarray, device: torch.device) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32, device=device)
