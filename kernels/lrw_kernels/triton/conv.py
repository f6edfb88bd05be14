"""The three products of a Winograd layer on an NVIDIA GPU: transform, multiply position by position, transform back.

Tensors are [N, D, H, W, C], results new and contiguous. V and M of a part of the tiles are in memory at a time; where
channels are few, M never is. Nothing is saved between passes, sums have one order, and no kernel uses atomics.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import ceil, prod

import torch
from torch import Tensor

from lrw_kernels.triton import choose, launch, parts
from lrw_kernels.triton.launch import Cells
from lrw_kernels.triton.layer import PLAIN, Epilogue, Layer, channels_last
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.mirror import mirrored_positions
from lrw_kernels.winograd.tile import Triple

__all__ = ["PLAIN", "Epilogue", "Layer", "forward", "input_grad", "weight_grad"]


def forward(x: Tensor, u: Tensor, layer: Layer, epilogue: Epilogue = PLAIN) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout], all of one dtype."""
    tile = Tile.parse(layer.tile)
    size = tile.output_size(_size(x), layer.padding)
    return _convolve(x, u, layer, layer.positions, size, epilogue)


def input_grad(dy: Tensor, u: Tensor, layer: Layer, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]: the layer itself where its tile has mirrored positions, else the adjoint of each step."""
    mirrored = mirrored_positions(Tile.parse(layer.tile), layer.padding)
    back = u.transpose(1, 2)
    if mirrored is not None:
        return _convolve(dy, back, layer, tuple(mirrored[p] for p in layer.positions), input_size, PLAIN)
    return _adjoint(dy, back, layer, input_size)


def weight_grad(x: Tensor, dy: Tensor, layer: Layer) -> Tensor:
    """dU [K, Cin, Cout] float32, sums in a fixed order."""
    tile, x, dy = Tile.parse(layer.tile), channels_last(x), channels_last(dy)
    grid, count, channels = tile.grid(_size(dy)), len(layer.positions), (x.shape[4], dy.shape[4])
    each = count * sum(channels) * x.element_size()
    cut = parts.of_tiles(dy.shape[0] * prod(grid), each, parts.workspace(layer, x, dy))
    most = cut[0][1] if cut else 0
    with _on(x.device):
        chosen = choose.weight_sums(layer, *channels, most, x.device)
        sums = launch.WeightSums((count, *channels), most, layer.precision, chosen, x.device)
        v, dm = (sums.operand(most, number, x) for number in channels)
        to_v = launch.gather(x, "B", layer, layer.positions, grid, tile.starts(layer.padding), by_tile=sums.by_tile)
        to_dm = launch.gather(dy, "A", layer, layer.positions, grid, tile.starts(), by_tile=sums.by_tile)
        for first, tiles in cut:
            left, right = sums.part(v, tiles), sums.part(dm, tiles)
            to_v(left, first, tiles)
            to_dm(right, first, tiles)
            sums.add(left, right)
        return sums.total()


def _convolve(
    x: Tensor, u: Tensor, layer: Layer, positions: tuple[int, ...], size: Triple, epilogue: Epilogue
) -> Tensor:
    tile, x = Tile.parse(layer.tile), channels_last(x)
    grid, steps, channels = tile.grid(size), u.shape[1], u.shape[2]
    y = torch.empty(x.shape[0], *size, channels, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    epilogue = epilogue.packed()
    fused = choose.fused(layer, steps, channels, x.device)
    each = len(positions) * (steps + (0 if fused else channels)) * x.element_size()
    cut = parts.of_tiles(x.shape[0] * prod(grid), each, parts.workspace(layer, x, y))
    with _on(x.device):
        u = launch.operand(u, layer.precision)
        v = x.new_empty(len(positions), cut[0][1], steps)
        to_v = launch.gather(x, "B", layer, positions, grid, tile.starts(layer.padding))
        if fused:
            finish = launch.products_scatter(u, y, layer, positions, grid, epilogue, fused)
        else:
            finish = _products_then_scatter(u, y, layer, positions, grid, epilogue, cut[0][1])
        for first, tiles in cut:
            part = v[:, :tiles]
            to_v(part, first, tiles)
            finish(part, first)
    return y


def _products_then_scatter(
    u: Tensor, y: Tensor, layer: Layer, positions: tuple[int, ...], grid: Triple, epilogue: Epilogue, most: int
) -> Callable[[Tensor, int], None]:
    """As `launch.products_scatter`, by two kernels with products of `most` tiles in memory between them."""
    m, starts = y.new_empty(len(positions), most, y.shape[4]), Tile.parse(layer.tile).starts()
    to_y = launch.scatter(y, "A", layer, positions, grid, epilogue)
    chosen = choose.products(layer, most, u.shape[1], u.shape[2], y.device)

    def finish(v: Tensor, first: int) -> None:
        tiles = v.shape[1]
        part = m[:, :tiles]
        launch.multiply(v, u, part, layer.precision, chosen)
        to_y(part, Cells(grid, starts, first, tiles, first))

    return finish


def _adjoint(dy: Tensor, back: Tensor, layer: Layer, input_size: Triple) -> Tensor:
    """dX as the overlap-add of B^T (A dY) U^T: cells gather from the tiles that reach them, which needs no atomics."""
    tile, dy = Tile.parse(layer.tile), channels_last(dy)
    grid, starts = tile.grid(_size(dy)), tile.starts(layer.padding)
    cells = _triple(ceil((n - s) / m) for n, s, m in zip(input_size, starts, tile.outputs, strict=True))
    dx = torch.empty(dy.shape[0], *input_size, back.shape[2], dtype=dy.dtype, device=dy.device)
    if dx.numel() == 0:
        return dx
    count = len(layer.positions)
    with _on(dy.device):
        back = launch.operand(back, layer.precision)
        to_dm = launch.gather(dy, "A", layer, layer.positions, grid, tile.starts())
        to_dx = launch.scatter(dx, "B", layer, layer.positions, grid, PLAIN)
        for samples, planes in _slabs(dy, dx, layer, grid, cells):
            first, tiles = _reaching(samples, planes, tile, grid)
            dm = dy.new_empty(count, tiles, dy.shape[4])
            dv = dy.new_empty(count, tiles, dx.shape[4])
            to_dm(dm, first, tiles)
            chosen = choose.products(layer, tiles, dy.shape[4], dx.shape[4], dy.device)
            launch.multiply(dm, back, dv, layer.precision, chosen)
            low, high = planes
            area, whole = prod(cells[1:]), (len(samples) - 1) * cells[0]
            to_dx(dv, Cells(cells, starts, (samples[0] * cells[0] + low) * area, (whole + high - low) * area, first))
    return dx


def _slabs(
    dy: Tensor, dx: Tensor, layer: Layer, grid: Triple, cells: Triple
) -> Iterator[tuple[range, tuple[int, int]]]:
    """Samples, and planes of cells of dX along d, that are formed at a time."""
    each = prod(grid[1:]) * len(layer.positions) * (dy.shape[4] + dx.shape[4]) * dy.element_size()
    return parts.of_slabs(dy.shape[0], cells[0], each, parts.workspace(layer, dy, dx))


def _reaching(samples: range, planes: tuple[int, int], tile: Tile, grid: Triple) -> tuple[int, int]:
    """The first of the tiles that reach such cells, and how many they are."""
    overlap, area = ceil(tile.inputs[0] / tile.outputs[0]), prod(grid[1:])
    begin, end = max(0, planes[0] - overlap + 1), min(grid[0], planes[1])
    if len(samples) > 1:  # whole ones
        begin, end = 0, grid[0]
    return (samples[0] * grid[0] + begin) * area, ((len(samples) - 1) * grid[0] + end - begin) * area


def _size(x: Tensor) -> Triple:
    return _triple(x.shape[1:4])


def _triple(values: Sequence[int] | Iterator[int]) -> Triple:
    d, h, w = values
    return d, h, w


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Kernels start on the current device: make it the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
