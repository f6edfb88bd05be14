"""What identifies a Winograd layer beside its weights: the tile with its origin, the padding, the kept positions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import Tile, kept_positions
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


@lru_cache(maxsize=1024)
def geometry(tile: str, padding: Triple, kept: tuple[int, ...] | None, fixed: bool) -> Geometry:
    """The geometry an operator's plain arguments stand for."""
    parsed = Tile.parse(tile)
    return Geometry(parsed, padding, None if kept is None else kept_positions(kept, parsed), fixed)
