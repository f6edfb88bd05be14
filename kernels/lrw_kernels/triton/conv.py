"""The three products of a Winograd layer on an NVIDIA GPU: transform, multiply position by position, transform back.

Tensors are [N, D, H, W, C], results new and contiguous. V and M of a part of the tiles are in memory at a time; where
channels are few, M never is. Nothing is saved between passes, sums have one order, and no kernel uses atomics.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from lrw_kernels.triton import config, products, tables, transforms
from lrw_kernels.triton.precision import Precision, matmuls_are_plain
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.mirror import mirrored_positions
from lrw_kernels.winograd.tile import Triple

OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}  # c a + b is one instruction, whatever Triton's default is


@dataclass(frozen=True)
class Layer:
    """A tile (its text), zero padding and kept positions; `precision` of products, `workspace` in bytes, and whether
    products and inverse transform may be one kernel."""

    tile: str
    padding: Triple
    positions: tuple[int, ...]
    precision: Precision
    workspace: int = config.WORKSPACE
    fuse: bool = True


class Epilogue(NamedTuple):
    """bias [Cout], residual like the output, and whether negative values become zero."""

    bias: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False

    def packed(self) -> "Epilogue":
        """With contiguous channels."""
        bias = None if self.bias is None else self.bias.contiguous()
        return Epilogue(bias, None if self.residual is None else _last(self.residual), self.relu)


NOTHING = Epilogue()


def forward(x: Tensor, u: Tensor, layer: Layer, epilogue: Epilogue = NOTHING) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout], all of one dtype."""
    tile = Tile.parse(layer.tile)
    size = tile.output_size(_size(x), layer.padding)
    return _convolve(x, u, layer, layer.positions, size, epilogue)


def input_grad(dy: Tensor, u: Tensor, layer: Layer, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]: the layer itself where its tile has mirrored positions, else the adjoint of each step."""
    mirrored = mirrored_positions(Tile.parse(layer.tile), layer.padding)
    back = u.transpose(1, 2)
    if mirrored is not None:
        return _convolve(dy, back, layer, tuple(mirrored[p] for p in layer.positions), input_size, NOTHING)
    return _adjoint(dy, back, layer, input_size)


def weight_grad(x: Tensor, dy: Tensor, layer: Layer) -> Tensor:
    """dU [K, Cin, Cout] float32, sums in a fixed order."""
    tile = Tile.parse(layer.tile)
    grid = tile.grid(_size(dy))
    x, dy = _last(x), _last(dy)
    count, each = len(layer.positions), (x.shape[4] + dy.shape[4]) * x.element_size()
    du = torch.zeros(count, x.shape[4], dy.shape[4], dtype=torch.float32, device=x.device)
    with _on(x.device):
        for first, tiles in _parts(dy.shape[0] * prod(grid), count * each, _workspace(layer, x, dy)):
            v = _gather(x, "B", tile.starts(layer.padding), grid, layer, layer.positions, first, tiles)
            dm = _gather(dy, "A", tile.starts(), grid, layer, layer.positions, first, tiles)
            du += _summed(v.transpose(1, 2), dm, layer.precision)
    return du


def _convolve(
    x: Tensor, u: Tensor, layer: Layer, positions: tuple[int, ...], size: Triple, epilogue: Epilogue
) -> Tensor:
    tile, x = Tile.parse(layer.tile), _last(x)
    grid, steps, channels = tile.grid(size), u.shape[1], u.shape[2]
    y = torch.empty(x.shape[0], *size, channels, dtype=x.dtype, device=x.device)
    if y.numel() == 0:
        return y
    epilogue = epilogue.packed()
    fused = config.fused(layer.precision, steps, channels, tile.outputs) if layer.fuse else None
    each, u = (steps + (0 if fused else channels)) * x.element_size(), _by_output(u, layer.precision)
    with _on(x.device):
        for first, tiles in _parts(x.shape[0] * prod(grid), len(positions) * each, _workspace(layer, x, y)):
            v = _gather(x, "B", tile.starts(layer.padding), grid, layer, positions, first, tiles)
            if fused:
                _products_scatter(v, u, y, layer, positions, grid, first, epilogue, fused)
            else:
                m = _multiplied(v, u, layer.precision)
                part = _Cells(grid, tile.starts(), first, tiles, first)
                _scatter(m, y, "A", grid, layer, positions, part, epilogue)
    return y


def _adjoint(dy: Tensor, back: Tensor, layer: Layer, input_size: Triple) -> Tensor:
    """dX as the overlap-add of B^T (A dY) U^T: cells gather from the tiles that reach them, which needs no atomics."""
    tile, dy = Tile.parse(layer.tile), _last(dy)
    grid, starts = tile.grid(_size(dy)), tile.starts(layer.padding)
    cells = _triple(ceil((n - s) / m) for n, s, m in zip(input_size, starts, tile.outputs, strict=True))
    dx = torch.empty(dy.shape[0], *input_size, back.shape[2], dtype=dy.dtype, device=dy.device)
    back = _by_output(back, layer.precision)
    each = len(layer.positions) * (back.shape[1] + back.shape[2]) * dy.element_size()
    overlap = ceil(tile.inputs[0] / tile.outputs[0])
    if dx.numel() == 0:
        return dx
    with _on(dy.device):
        for samples, (low, high) in _slabs(dy.shape[0], cells[0], prod(grid[1:]) * each, _workspace(layer, dy, dx)):
            begin, end = max(0, low - overlap + 1), min(grid[0], high)
            if len(samples) > 1:  # whole ones
                begin, end = 0, grid[0]
            area, first = prod(grid[1:]), (samples[0] * grid[0] + begin) * prod(grid[1:])
            tiles = ((len(samples) - 1) * grid[0] + end - begin) * area
            dm = _gather(dy, "A", tile.starts(), grid, layer, layer.positions, first, tiles)
            dv = _multiplied(dm, back, layer.precision)
            plane = prod(cells[1:])
            count = ((len(samples) - 1) * cells[0] + high - low) * plane
            part = _Cells(cells, starts, (samples[0] * cells[0] + low) * plane, count, first)
            _scatter(dv, dx, "B", grid, layer, layer.positions, part, NOTHING)
    return dx


class _Cells(NamedTuple):
    """Cells of the output per axis, where they start, how many to fill from `first` on, the first tile in memory."""

    grid: Triple
    starts: Triple
    first: int
    number: int
    first_tile: int


def _gather(
    x: Tensor, name: str, starts: Triple, grid: Triple, layer: Layer, positions: tuple[int, ...], first: int, tiles: int
) -> Tensor:
    """[K, tiles, C] of the tiles from `first` on."""
    table, channels = tables.gather(layer.tile, name, positions, x.device), x.shape[4]
    v = torch.empty(len(positions), tiles, channels, dtype=x.dtype, device=x.device)
    chosen = config.gather(len(table.h[0]) * len(table.w[0]), len(table.w[0]), channels, x.element_size())
    blocks = (triton.cdiv(tiles, chosen.tiles), triton.cdiv(channels, chosen.channels))
    transforms.gather[blocks](
        x, v, table.slots, table.rows, table.taps, table.factors, table.rows.numel(), *x.stride()[:4], *_size(x),
        channels, *grid, *starts, first, tiles, TAPS=table.most_taps, UNROLLED=table.unrolled,
        STEPS=Tile.parse(layer.tile).outputs, H=table.h, W=table.w, TILES=chosen.tiles, CHANNELS=chosen.channels,
        num_warps=chosen.warps, **OPTIONS,
    )  # fmt: skip
    return v


def _scatter(
    m: Tensor, y: Tensor, name: str, grid: Triple, layer: Layer, positions: tuple[int, ...], part: _Cells,
    epilogue: Epilogue,
) -> None:  # fmt: skip
    table, channels = tables.scatter(layer.tile, name, positions, y.device), y.shape[4]
    outputs = Tile.parse(layer.tile).outputs
    depths, chosen = config.scatter(outputs, len(table.w), table.reach, channels, y.element_size())
    blocks = (triton.cdiv(part.number, chosen.tiles), triton.cdiv(channels, chosen.channels), outputs[0] // depths)
    residual = y if epilogue.residual is None else epilogue.residual
    transforms.scatter[blocks](
        m, y, epilogue.bias, residual, table.slots, table.rows, table.shifts, table.factors, table.heights,
        table.rows.numel(), *y.stride()[:4], *residual.stride()[:4], *_size(y), channels, *grid, *part.grid,
        *part.starts, part.first, part.number, part.first_tile, m.shape[1], **_flags(epilogue), STEPS=outputs,
        DEPTHS=depths, H=table.h, W=table.w, ROLLED=table.reach > 1, TILES=chosen.tiles, CHANNELS=chosen.channels,
        num_warps=chosen.warps, **OPTIONS,
    )  # fmt: skip


def _products_scatter(
    v: Tensor, u: Tensor, y: Tensor, layer: Layer, positions: tuple[int, ...], grid: Triple, first: int,
    epilogue: Epilogue, chosen: config.Products,
) -> None:  # fmt: skip
    tile, (_, tiles, steps), channels = Tile.parse(layer.tile), v.shape, y.shape[4]
    factors = tables.output_factors(layer.tile, positions, y.device)
    residual = y if epilogue.residual is None else epilogue.residual
    blocks = (triton.cdiv(tiles, chosen.rows) * triton.cdiv(channels, chosen.columns),)
    products.products_scatter[blocks](
        v, u, y, epilogue.bias, residual, factors, len(positions), *u.stride(), *y.stride()[:4],
        *residual.stride()[:4], *_size(y), steps, channels, *grid, *tile.starts(), first, tiles, **_flags(epilogue),
        OUTPUTS=tile.outputs, TILES=chosen.rows, COLUMNS=chosen.columns, STEPS=chosen.steps,
        PRECISION=_input(layer.precision), num_warps=chosen.warps, num_stages=chosen.stages, **OPTIONS,
    )  # fmt: skip


def _multiplied(v: Tensor, u: Tensor, precision: Precision) -> Tensor:
    """[K, tiles, Cout] = V [K, tiles, Cin] U [K, Cin, Cout], in V's dtype; U of any strides."""
    if precision == "ieee" and matmuls_are_plain():
        return torch.bmm(v, u)  # cuBLAS: no tensor cores to gain from here, and its float32 kernels are good
    m = torch.empty(v.shape[0], v.shape[1], u.shape[2], dtype=v.dtype, device=v.device)
    _products(v, u, m[None], precision, v.shape[2])
    return m


def _by_output(u: Tensor, precision: Precision) -> Tensor:
    """U [K, Cin, Cout] as kernels read it best: Hopper's TF32 products take operands with the sum's axis contiguous."""
    return u.transpose(1, 2).contiguous().transpose(1, 2) if precision == "tf32" else u


def _summed(a: Tensor, b: Tensor, precision: Precision) -> Tensor:
    """[K, rows, columns] float32 = a [K, rows, tiles] b [K, tiles, columns], the sum over tiles in parts."""
    if precision == "ieee" and matmuls_are_plain():
        return torch.bmm(a, b)
    count, rows, steps = a.shape
    chosen = config.products(precision, rows, b.shape[2], steps)
    share = ceil(ceil(steps / config.splits(rows, b.shape[2], steps, count, chosen)) / chosen.steps) * chosen.steps
    parts = torch.empty(ceil(steps / share), count, rows, b.shape[2], dtype=torch.float32, device=a.device)
    _products(a, b, parts, precision, share)
    return parts.sum(0)


def _products(a: Tensor, b: Tensor, c: Tensor, precision: Precision, share: int) -> None:
    """c [splits, K, rows, columns] of a [K, rows, steps] and b [K, steps, columns] of any strides."""
    (count, rows, steps), columns = a.shape, b.shape[2]
    chosen = config.products(precision, rows, columns, steps)
    blocks = (triton.cdiv(rows, chosen.rows) * triton.cdiv(columns, chosen.columns), count, c.shape[0])
    whole = share % chosen.steps == 0 and steps % share == 0
    products.products[blocks](
        a, b, c, rows, columns, steps, share, a.stride(0), b.stride(0), a.stride(1), a.stride(2), b.stride(1),
        b.stride(2), c.stride(0), ROWS=chosen.rows, COLUMNS=chosen.columns, STEPS=chosen.steps, GROUP=chosen.group,
        WHOLE=whole, PRECISION=_input(precision), num_warps=chosen.warps, num_stages=chosen.stages, **OPTIONS,
    )  # fmt: skip


def _input(precision: Precision) -> str:
    """The precision as `tl.dot` names it; it does not look at it for 16-bit numbers."""
    return "tf32" if precision == "tf32" else "ieee"


def _flags(epilogue: Epilogue) -> dict[str, bool]:
    has_bias, has_residual = epilogue.bias is not None, epilogue.residual is not None
    return {"HAS_BIAS": has_bias, "HAS_RESIDUAL": has_residual, "RELU": epilogue.relu}


def _workspace(layer: Layer, *activations: Tensor) -> int:
    """Bytes for V and M: little beside the activations themselves, but enough to fill the GPU."""
    share = sum(t.numel() * t.element_size() for t in activations) // config.WORKSPACE_SHARE
    return min(layer.workspace, max(config.LEAST_WORKSPACE, share))


def _parts(tiles: int, bytes_each: int, workspace: int) -> Iterator[tuple[int, int]]:
    """(first, count) of even parts of the tiles whose V and M stay within `workspace`."""
    parts = max(1, ceil(tiles * bytes_each / workspace))
    most = ceil(tiles / parts / 128) * 128
    for first in range(0, tiles, most or 1):
        yield first, min(most, tiles - first)


def _slabs(batch: int, depth: int, bytes_each: int, workspace: int) -> Iterator[tuple[range, tuple[int, int]]]:
    """Samples, and planes of cells along d, within `workspace`: several whole samples, or a part of one."""
    together = max(1, workspace // bytes_each)
    if together >= depth:
        for first in range(0, batch, together // depth):
            yield range(first, min(batch, first + together // depth)), (0, depth)
        return
    for n in range(batch):
        for low in range(0, depth, together):
            yield range(n, n + 1), (low, min(depth, low + together))


def _last(x: Tensor) -> Tensor:
    """x with contiguous channels."""
    return x if x.stride(4) == 1 else x.contiguous()


def _size(x: Tensor) -> Triple:
    return _triple(x.shape[1:4])


def _triple(values: Sequence[int] | Iterator[int]) -> Triple:
    d, h, w = values
    return d, h, w


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Kernels start on the current device: make it the tensors' own."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
