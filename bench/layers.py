"""A convolution as benches know it, and how the command line names some; each bench has a table of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from lrw_kernels.winograd import Tile

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """A 3x3x3 convolution, stride 1, padding 1: size is (D, H, W) of input and output."""

    name: str
    cin: int
    cout: int
    size: Triple

    @property
    def shape(self) -> tuple[int, ...]:
        """(Cin, Cout, D, H, W): all that a library sees of it."""
        return (self.cin, self.cout, *self.size)

    @property
    def macs(self) -> int:
        """Multiply-adds of direct convolution for one sample, those with the zeros of the padding included."""
        return 27 * self.cin * self.cout * prod(self.size)

    @property
    def title(self) -> str:
        """Name and shape, for people."""
        return f"{self.name}: {self.cin}->{self.cout} at {'x'.join(map(str, self.size))}"


Some = TypeVar("Some", bound=Layer)


def select(texts: str, layers: Sequence[Some]) -> list[Some]:
    """Those of `layers` whose names begin with one of the comma-separated `texts`, in order.

    Raises ValueError for a text that no name begins with.
    """
    wanted = [text.strip() for text in texts.split(",")]
    for text in wanted:
        if not text or not any(layer.name.startswith(text) for layer in layers):
            raise ValueError(f"{text!r} begins no layer's name; there are {', '.join(layer.name for layer in layers)}")
    return [layer for layer in layers if layer.name.startswith(tuple(wanted))]


def kept(tile: Tile, share: float) -> tuple[int, ...]:
    """That share of a tile's positions, at random, the same in every run; all of them for a share of one."""
    chosen = np.random.default_rng(1).choice(tile.positions, max(1, round(share * tile.positions)), replace=False)
    return tuple(sorted(int(p) for p in chosen))
