"""Slices, padding and what else gives the same numbers at other places, as tables of indices along each axis."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from lrw.trace.convolutions import level
from lrw.trace.site import Activation, Refused, Site, Value, activation, volume
from lrw_kernels.network.operators import Channels, Concat, Direct, Gather

Indices = list[int]


def sliced(
    at: Site, x: Value, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Activation:
    """Channels that follow one another, or any of the planes, rows or pixels of a volume; all but of samples."""
    source = activation(x)
    axis = dim % len(source.shape)
    return _taken(at, source, {axis: [*range(source.shape[axis])[start:end:step]]})


def split(at: Site, x: Value, split_size: int, dim: int) -> tuple[Value, ...]:
    """Parts of so many channels, planes, rows or pixels, the last of what is left."""
    whole = activation(x).shape[dim]
    return split_with_sizes(at, x, [min(split_size, whole - first) for first in range(0, whole, split_size)], dim)


def split_with_sizes(at: Site, x: Value, split_sizes: Sequence[int], dim: int) -> tuple[Value, ...]:
    """Parts of these sizes along the channels, planes, rows or pixels."""
    source, first, parts = activation(x), 0, list[Value]()
    axis = dim % len(source.shape)
    for size in split_sizes:
        shape = (*source.shape[:axis], size, *source.shape[axis + 1 :])
        parts.append(_taken(replace(at, shape=shape), source, {axis: [*range(first, first + size)]}))
        first += size
    return tuple(parts)


def flip(at: Site, x: Value, dims: Sequence[int]) -> Activation:
    """Planes, rows or pixels of a volume in the opposite order."""
    source, _ = volume(x)
    return _taken(at, source, {axis % 5: [*reversed(range(source.shape[axis]))] for axis in dims})


def roll(at: Site, x: Value, shifts: Sequence[int], dims: Sequence[int]) -> Activation:
    """Planes, rows or pixels of a volume shifted, those that go over its end to its beginning."""
    source, _ = volume(x)
    if not dims:
        raise Refused("dims []; accepted are those of a volume, 2, 3 and 4")
    shifted = {}
    for axis, shift in zip(dims, shifts, strict=True):
        size = source.shape[axis]
        shifted[axis % 5] = [(place - shift) % size for place in range(size)]
    return _taken(at, source, shifted)


def repeat(at: Site, x: Value, repeats: Sequence[int]) -> Activation:
    """The channels and the planes, rows and pixels of a volume several times, one after the other."""
    source, _ = volume(x)
    if len(repeats) != 5:
        raise Refused(f"repeats {list(repeats)}; accepted are five")
    sizes = enumerate(zip(source.shape, repeats, strict=True))
    tables = {axis: [*range(size)] * times for axis, (size, times) in sizes if times != 1 and axis != 1}
    shape = (*at.shape[:1], source.shape[1], *at.shape[2:])
    return _channels_again(at, _taken(replace(at, shape=shape), source, tables), repeats[1])


def expand(at: Site, x: Value, size: Sequence[int], implicit: bool = False) -> Activation:
    """A single channel, plane, row or pixel of a volume as often as asked for."""
    source, _ = volume(x)
    return repeat(at, x, [there // own for there, own in zip(at.shape, source.shape, strict=True)])


def _channels_again(at: Site, x: Activation, times: int) -> Activation:
    """`x` with its channels several times: a single one as a convolution, which writes whole pixels."""
    if times == 1 or x.shape[1] > 1:
        return at.add(Concat(), *[x] * times) if times > 1 else x
    return at.add(Direct(np.ones((1, 1, 1, 1, times), np.float32)), x)


def pad(at: Site, x: Value, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Activation:
    """Planes, rows and pixels around a volume: constant, replicated, reflected or circular; fewer of them where widths
    are negative. Channels too, with a constant."""
    source = activation(x)
    if not any(pad):
        return source
    pairs = [*zip(pad[::2], pad[1::2], strict=True)]
    widths = {len(source.shape) - 1 - back: pair for back, pair in enumerate(pairs) if any(pair)}
    before, after = widths.pop(1, (0, 0))
    number = 0.0 if value is None else float(value)
    if widths:
        tables = {axis: _padded(source.shape[axis], *pair, mode) for axis, pair in widths.items()}
        inner = (source.shape[0], source.shape[1], *at.shape[2:])
        source = _taken(replace(at, shape=inner), source, tables, number)
    return _with_channels(at, source, before, after, number) if before or after else source


def replication_pad3d(at: Site, x: Value, padding: Sequence[int]) -> Activation:
    """Planes, rows and pixels around a volume that repeat its outermost."""
    return pad(at, x, padding, "replicate")


def reflection_pad3d(at: Site, x: Value, padding: Sequence[int]) -> Activation:
    """Planes, rows and pixels around a volume that are its own, reflected at the outermost."""
    return pad(at, x, padding, "reflect")


def _padded(size: int, before: int, after: int, mode: str) -> Indices:
    """The inputs of an axis after padding; -1 where there is none."""
    places, last = range(-before, size + after), size - 1
    match mode:
        case "constant":
            return [place if 0 <= place < size else -1 for place in places]
        case "replicate":
            return [min(max(place, 0), last) for place in places]
        case "reflect":
            return [last - abs(last - abs(place)) for place in places]
    kept = [place for place in places if 0 <= place < size]  # circular: what is cut off is so before
    return [kept[place % len(kept)] for place in range(-max(0, before), len(kept) + max(0, after))]


def _with_channels(at: Site, x: Activation, before: int, after: int, value: float) -> Activation:
    """`x` with so many channels of `value` before and after its own, or fewer where those are negative."""
    first, last = max(0, -before), x.shape[1] - max(0, -after)
    inside = _taken(replace(at, shape=(x.shape[0], last - first, *x.shape[2:])), x, {1: [*range(first, last)]})
    counts = max(0, before), max(0, after)
    levels = [level(at, torch.full((x.shape[0], n, *x.shape[2:]), value), x) if n else None for n in counts]
    parts = [part for part in (levels[0], inside, levels[1]) if part is not None]
    return at.add(Concat(), *parts) if len(parts) > 1 else inside


def _taken(at: Site, x: Activation, tables: dict[int, Indices], value: float = 0.0) -> Activation:
    """A node that takes these indices of these axes of `x`, all of the others; none where that is all there is."""
    tables = {axis: table for axis, table in tables.items() if table != [*range(x.shape[axis])]}
    if not all(tables.values()):
        raise Refused("of nothing; accepted is one place at least")
    if not tables:
        return x
    if 0 in tables:
        raise Refused("along the samples, dim 0; accepted are the channels and the axes of a volume")
    if 1 in tables:
        return _channels(at, x, tables)
    source, size = volume(x)
    every = [tuple(tables.get(axis, range(n))) for axis, n in zip((2, 3, 4), size[1:4], strict=True)]
    return at.add(Gather((every[0], every[1], every[2]), value), source)


def _channels(at: Site, x: Activation, tables: dict[int, Indices]) -> Activation:
    index = tables[1]
    if len(tables) > 1 or index != [*range(index[0], index[0] + len(index))]:
        raise Refused(f"channels {index}; accepted are some that follow one another")
    return at.add(Channels(index[0], len(index)), x)
