"""Kept columns: which positions of the Winograd domain a layer still computes."""

from collections.abc import Iterable
from itertools import islice, pairwise
from operator import index

from lrw_kernels.untrusted import shown
from lrw_kernels.winograd.tile import Tile

Block = tuple[int, tuple[int, ...]]
"""Output channels that keep the same positions (perhaps none): how many they are, and which."""


def kept_positions(kept: Iterable[int] | None, tile: Tile) -> tuple[int, ...]:
    """`kept` as a checked, sorted tuple of positions; None keeps all T.

    Raises ValueError when it is empty, unsorted, names a position twice or one outside 0..T-1.
    """
    if kept is None:
        return tuple(range(tile.positions))
    try:
        positions = tuple(index(p) for p in islice(kept, tile.positions + 1))
    except TypeError as error:
        raise ValueError(f"kept: {shown(kept)} is not a sequence of whole numbers") from error
    if not positions:
        raise ValueError("kept: no position at all; a layer keeps at least one column")
    if any(a >= b for a, b in pairwise(positions)):
        raise ValueError("kept: positions must rise strictly; sort them and drop repeats")
    for position in (positions[0], positions[-1]):
        if not 0 <= position < tile.positions:
            raise ValueError(f"kept: position {shown(position)} outside 0..{tile.positions - 1} of {tile.name}")
    return positions
