"""Where a Winograd layer's adjoint is a Winograd layer of the same tile: with other positions, weights transposed."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import product

from lrw_kernels.winograd.tile import Tile, Triple
from lrw_kernels.winograd.transform import Transform

Operator = dict[tuple[int, int], Fraction]


@lru_cache(maxsize=256)
def mirrored_positions(tile: Tile, padding: Triple) -> tuple[int, ...] | None:
    """For each position p the one whose operator is that of p transposed, or None where one has no such partner.

    Where there is such a list, the gradient with respect to the input is the layer itself on dY, with weights U_p^T at
    position mirrored[p]: true of any weights, pruned ones too. F(2, 3) with padding 1 is such a tile, 0 and 3 being
    partners on each axis. Decided in rationals, from the matrices.
    """
    axes = [_partners(axis, origin, pad) for axis, origin, pad in zip(tile.axes, tile.origin, padding, strict=True)]
    if any(axis is None for axis in axes):
        return None
    d, h, w = (axis or () for axis in axes)
    _, th, tw = tile.inputs
    return tuple((i * th + j) * tw + k for i, j, k in product(d, h, w))


def _partners(axis: Transform, origin: int, padding: int) -> tuple[int, ...] | None:
    if 2 * padding != axis.r - 1:  # the adjoint would have another size
        return None
    operators = [_operator(a, b, axis.m, -origin, -origin - padding) for a, b in zip(axis.A, axis.B, strict=True)]
    found = []
    for operator in operators:
        turned = _canonical(((i, o, value) for (o, i), value in operator.items()), axis.m)
        if turned not in operators:
            return None
        found.append(operators.index(turned))
    return tuple(found)


def _operator(a: Sequence[Fraction], b: Sequence[Fraction], m: int, output: int, start: int) -> Operator:
    """A position's part of the layer on an endless axis: what input `start + k` adds to output `output + r`."""
    pairs = product(enumerate(a), enumerate(b))
    return _canonical(((output + r, start + k, x * y) for (r, x), (k, y) in pairs), m)


def _canonical(entries: Iterable[tuple[int, int, Fraction]], m: int) -> Operator:
    """Entries (output, input, value) of one tile, as those of outputs 0..m-1: tiles are m apart, and all alike."""
    result: Operator = {}
    for output, source, value in entries:
        shift = output // m * m
        key = output - shift, source - shift
        result[key] = result.get(key, Fraction(0)) + value
    return {key: value for key, value in result.items() if value}
