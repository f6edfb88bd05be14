"""What identifies a Winograd layer beside its weights: the tile with its origin, the padding, the kept positions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import NamedTuple

import torch

from lrw.activations import compute_dtype
from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import Block, Tile, kept_positions, spatial_error
from lrw_kernels.winograd.tile import MAX_PADDING, Triple


class Layer(NamedTuple):
    """A geometry as the plain values operators take and torch.compile can trace."""

    tile: str
    kernel_size: Triple
    padding: Triple
    kept: tuple[int, ...] | None
    columns: int
    fixed: bool
    rectified: bool

    def output_size(self, input_size: Sequence[int]) -> Triple:
        """Outputs [3] for an input of `input_size` [3]; none where an axis has no whole filter."""
        d, h, w = (n + 2 * p - r + 1 for n, p, r in zip(input_size, self.padding, self.kernel_size, strict=True))
        return d, h, w


class GroupedLayer(NamedTuple):
    """As `Layer`, of a layer whose blocks of output channels keep positions of their own: `channels` and number of kept
    positions (`counts`) of each block, and those positions, the first block's first."""

    tile: str
    padding: Triple
    channels: tuple[int, ...]
    counts: tuple[int, ...]
    kept: tuple[int, ...]
    rectified: bool

    @classmethod
    def of(cls, whole: "Geometry", blocks: Sequence[Block]) -> "GroupedLayer":
        """The plain values of `blocks`, in the tile and padding of `whole`."""
        channels, counts = tuple(n for n, _ in blocks), tuple(len(kept) for _, kept in blocks)
        positions = tuple(p for _, kept in blocks for p in kept)
        return cls(str(whole.tile), whole.padding, channels, counts, positions, whole.rectified)


@dataclass(frozen=True)
class Geometry:
    """Tile, zero padding [3] and kept positions of one layer; `kept` None stands for all T.

    `fixed` says that the kept set is final: a backend may generate code for it. It changes no result. `rectified` makes
    it a Winograd-ReLU layer (Liu, Pool, Han, Dally, arXiv 1802.06367): negative values of V count as zero. Raises
    ValueError for more padding than MAX_PADDING: beyond the filter it makes outputs of zeros and nothing else.
    """

    tile: Tile
    padding: Triple
    kept: tuple[int, ...] | None = None
    fixed: bool = False
    rectified: bool = False

    def __post_init__(self) -> None:
        d, h, w = self.padding
        if not (0 <= d <= MAX_PADDING and 0 <= h <= MAX_PADDING and 0 <= w <= MAX_PADDING):
            raise ValueError(f"padding: {shown(self.padding)}; accepted are 0 to {MAX_PADDING} on each axis")

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """The kept positions, written out."""
        return kept_positions(self.kept, self.tile)

    @property
    def columns(self) -> int:
        """K, how many columns are computed."""
        return self.tile.positions if self.kept is None else len(self.kept)

    @cached_property
    def arguments(self) -> Layer:
        """This geometry in plain values."""
        sizes, columns = self.tile.kernel_size, self.columns
        return Layer(str(self.tile), sizes, self.padding, self.kept, columns, self.fixed, self.rectified)

    def output_size(self, input_size: Sequence[int]) -> Triple:
        """Outputs [3] for an input of `input_size` [3]."""
        return self.tile.output_size(input_size, self.padding)


RTOL = 1e-2  # error bound beyond which layers are not given a tile


def error_bound(tile: Tile, channels: int, dtype: torch.dtype) -> float:
    """The largest error of a tile's outputs over the largest output, for `channels` inputs and weights of `dtype`, U
    rounded to it."""
    computing, stored = (float(torch.finfo(d).eps) for d in (compute_dtype(dtype), dtype))
    return spatial_error(tile, channels, computing, stored)


@lru_cache(maxsize=1024)
def geometry(tile: str, padding: Triple, kept: tuple[int, ...] | None, fixed: bool) -> Geometry:
    """The geometry an operator's plain arguments stand for."""
    parsed = Tile.parse(tile)
    return Geometry(parsed, padding, None if kept is None else kept_positions(kept, parsed), fixed)


@lru_cache(maxsize=1024)
def grouped_geometry(
    tile: str, padding: Triple, channels: tuple[int, ...], counts: tuple[int, ...], kept: tuple[int, ...]
) -> tuple[Geometry, tuple[Block, ...]]:
    """What the plain arguments of an operator on blocks stand for: the geometry of all positions that any block keeps,
    and the blocks. Raises ValueError where there are none, or positions are not the tile's in rising order."""
    if len(channels) != len(counts) or min(channels, default=0) < 1:
        raise ValueError(
            f"channels: {shown(channels)} for {len(counts)} blocks; accepted are numbers from 1, one for each block"
        )
    if min(counts) < 0 or sum(counts) != len(kept):
        raise ValueError(f"counts: {shown(counts)} of {len(kept)} kept positions; accepted are numbers that add up")
    parsed, ends = Tile.parse(tile), tuple(accumulate(counts))
    own = [kept[end - count : end] for count, end in zip(counts, ends, strict=True)]
    parts = [kept_positions(positions, parsed) if positions else () for positions in own]
    return geometry(tile, padding, union(parts, parsed), True), tuple(zip(channels, parts, strict=True))


def union(parts: Iterable[Sequence[int]], tile: Tile) -> tuple[int, ...]:
    """The positions of `tile` that stand in any of `parts`. Raises ValueError where none do, or others do."""
    return kept_positions(sorted({position for part in parts for position in part}), tile)
