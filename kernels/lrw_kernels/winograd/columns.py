"""Kept columns: which positions of the Winograd domain a layer still computes."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from operator import index

from lrw_kernels.winograd.tile import Tile


def kept_positions(kept: Iterable[int] | None, tile: Tile) -> tuple[int, ...]:
    """`kept` as a checked, sorted tuple of positions; None keeps all T.

    Raises ValueError when it is empty, unsorted, names a position twice or one outside 0..T-1.
    """
    if kept is None:
        return tuple(range(tile.positions))
    try:
        positions = tuple(index(p) for p in kept)
    except TypeError as error:
        raise ValueError(f"kept: {kept!r} is not a sequence of integers") from error
    if not positions:
        raise ValueError("kept: no position at all; a layer keeps at least one column")
    if any(a >= b for a, b in pairwise(positions)):
        raise ValueError("kept: positions must rise strictly; sort them and drop repeats")
    for position in (positions[0], positions[-1]):
        if not 0 <= position < tile.positions:
            raise ValueError(f"kept: position {position} outside 0..{tile.positions - 1} of {tile.name}")
    return positions


def position_coordinates(position: int, tile: Tile) -> tuple[int, int, int]:
    """(p_d, p_h, p_w) of row-major `position`."""
    _, h, w = tile.inputs
    return position // (h * w), position // w % h, position % w


def occupied_lines(kept: Sequence[int], tile: Tile) -> tuple[int, int, int]:
    """How many d rows, (d, h) lines and positions hold a kept column: what separable transforms have to visit."""
    coordinates = [position_coordinates(p, tile) for p in kept]
    return len({c[0] for c in coordinates}), len({c[:2] for c in coordinates}), len(coordinates)
