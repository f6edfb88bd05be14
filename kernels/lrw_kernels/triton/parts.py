"""How much of a pass is in memory at a time: parts of the tiles, within a workspace."""

from collections.abc import Iterator
from math import ceil

from torch import Tensor

from lrw_kernels.triton import config
from lrw_kernels.triton.layer import Layer

TILES = 128  # parts are multiples of that: whole blocks of the kernels


def workspace(layer: Layer, *activations: Tensor) -> int:
    """Bytes for V and M: no more than the activations themselves, but enough to keep the GPU busy."""
    size = sum(t.numel() * t.element_size() for t in activations)
    return min(layer.workspace, max(config.LEAST_WORKSPACE, size))


def of_tiles(tiles: int, bytes_each: int, most: int) -> list[tuple[int, int]]:
    """(first, count) of even parts whose V and M stay within `most` bytes, or are of TILES tiles."""
    count = max(1, ceil(tiles * bytes_each / most))
    each = ceil(tiles / count / TILES) * TILES
    return [(first, min(each, tiles - first)) for first in range(0, tiles, each or 1)]


def of_slabs(batch: int, depth: int, bytes_each: int, most: int) -> Iterator[tuple[range, tuple[int, int]]]:
    """Samples, and planes of cells along d, within `most` bytes: several whole samples, or a part of one."""
    together = max(1, most // bytes_each)
    if together >= depth:
        for first in range(0, batch, together // depth):
            yield range(first, min(batch, first + together // depth)), (0, depth)
        return
    for n in range(batch):
        for low in range(0, depth, together):
            yield range(n, n + 1), (low, min(depth, low + together))
