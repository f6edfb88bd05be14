"""How each kernel is started. What does not change from part to part of a pass is found once, before the first.

Starting a kernel costs the host 20 microseconds or more, as long as the GPU takes for megabytes: so there are few
starts, each told only what is its own.
"""

from collections.abc import Callable
from functools import cache
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lrw_kernels.triton import choose, config, products, tables, transforms
from lrw_kernels.triton.layer import Epilogue, Layer
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.tile import Triple

OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}  # c a + b is one instruction, whatever Triton's default is


class Cells(NamedTuple):
    """Cells of the output per axis, where they start, how many to fill from `first` on, the first tile in memory."""

    grid: Triple
    starts: Triple
    first: int
    number: int
    first_tile: int


def gather(
    x: Tensor, name: str, layer: Layer, positions: tuple[int, ...], grid: Triple, starts: Triple,
    chosen: config.Transform | None = None, *, by_tile: bool = False,
) -> Callable[[Tensor, int, int], None]:  # fmt: skip
    """A function that fills v [K, filled, C], of any strides, with the tiles from `first` on, zeros behind `tiles`.

    `by_tile`: v will have tiles one behind the other, not channels.
    """
    table, channels = tables.gather(layer.tile, name, positions, x.device), x.shape[4]
    taken = chosen or choose.gather(layer, table, channels, x.element_size(), x.device, by_tile=by_tile)
    across = ceil(channels / taken.channels)
    fixed = (*x.stride()[:4], *x.shape[1:4], channels, *grid, *starts)
    named = dict(TAPS=table.most_taps, UNROLLED=table.unrolled, ROLLED=table.rolled,
                 STEPS=Tile.parse(layer.tile).outputs, H=table.h, W=table.w, PACKED=table.packed(layer.precision),
                 ROUNDED=layer.precision == "tf32", **_blocks(taken))  # fmt: skip

    def start(v: Tensor, first: int, tiles: int) -> None:
        filled = v.shape[1]
        transforms.gather[(ceil(filled / taken.tiles), across)](
            x, v, table.slots, table.rows, table.taps, table.factors, table.heights, table.row_count, *fixed, first,
            tiles, filled, *v.stride(), **named,
        )  # fmt: skip

    return start


def scatter(
    y: Tensor, name: str, layer: Layer, positions: tuple[int, ...], grid: Triple, epilogue: Epilogue,
    chosen: config.Transform | None = None,
) -> Callable[[Tensor, Cells], None]:  # fmt: skip
    """A function that fills cells of y from products m [K, tiles, C]."""
    table, channels = tables.scatter(layer.tile, name, positions, y.device), y.shape[4]
    outputs = Tile.parse(layer.tile).outputs
    depths, usual = choose.scatter(layer, table, channels, y.element_size(), y.device)
    taken = chosen or usual
    across = ceil(channels / taken.channels), outputs[0] // depths
    residual = y if epilogue.residual is None else epilogue.residual
    before = (epilogue.bias, residual, table.slots, table.rows, table.shifts, table.factors, table.heights,
              table.row_count, *y.stride()[:4], *residual.stride()[:4], *y.shape[1:4], channels, *grid)  # fmt: skip
    named = dict(_flags(epilogue), STEPS=outputs, DEPTHS=depths, H=table.h, W=table.w, ROLLED=table.rolled,
                 **_blocks(taken))  # fmt: skip

    def start(m: Tensor, part: Cells) -> None:
        transforms.scatter[(ceil(part.number / taken.tiles), *across)](
            m, y, *before, *part.grid, *part.starts, part.first, part.number, part.first_tile, m.stride(0), **named
        )

    return start


def products_scatter(
    u: Tensor, y: Tensor, layer: Layer, positions: tuple[int, ...], grid: Triple, epilogue: Epilogue,
    chosen: config.Products,
) -> Callable[[Tensor, int], None]:  # fmt: skip
    """A function that fills the tiles of y from `first` on, of v [K, tiles, Cin] and U [K, Cin, Cout]."""
    tile, channels, across = Tile.parse(layer.tile), y.shape[4], ceil(y.shape[4] / chosen.columns)
    factors = tables.output_factors(layer.tile, positions, y.device)
    residual = y if epilogue.residual is None else epilogue.residual
    before = (u, y, epilogue.bias, residual, factors, len(positions))
    after = (*u.stride(), *y.stride()[:4], *residual.stride()[:4], *y.shape[1:4], u.shape[1], channels, *grid,
             *tile.starts())  # fmt: skip
    named = dict(
        _flags(epilogue), OUTPUTS=tile.outputs, TILES=chosen.rows, COLUMNS=chosen.columns, STEPS=chosen.steps,
        PRECISION=_input(layer.precision), **_options(chosen),
    )  # fmt: skip

    def start(v: Tensor, first: int) -> None:
        tiles = v.shape[1]
        blocks = (ceil(tiles / chosen.rows) * across,)
        products.products_scatter[blocks](v, *before, v.stride(0), *after, first, tiles, **named)

    return start


def operand(u: Tensor, precision: Precision) -> Tensor:
    """U [K, Cin, Cout] as kernels read it best: for TF32 rounded, since tensor cores cut off what is left, and with the
    sum's axis contiguous, since those of Hopper take no others."""
    if precision != "tf32":
        return u
    count, steps, columns = u.shape
    out, block = u.new_empty(count, columns, steps).transpose(1, 2), config.TRANSPOSED
    products.operand[(ceil(steps / block), ceil(columns / block), count)](
        u, out, steps, columns, *u.stride(), out.stride(0), STEPS=block, COLUMNS=block, num_warps=4, **OPTIONS
    )
    return out


def multiply(v: Tensor, u: Tensor, m: Tensor, precision: Precision, chosen: config.Products | None) -> None:
    """m [K, tiles, Cout] = V [K, tiles, Cin] U [K, Cin, Cout], U of any strides; by cuBLAS, if nothing is `chosen`."""
    if chosen is None:
        torch.bmm(v, u, out=m)
    else:
        sums(v, u, m[None], precision, v.shape[2], chosen)


class WeightSums:
    """dU [K, Cin, Cout] float32 = sum over tiles of V^T dM, added up over parts of the tiles, in one order."""

    def __init__(
        self, shape: tuple[int, int, int], tiles: int, precision: Precision, chosen: config.Products | None,
        device: torch.device,
    ) -> None:  # fmt: skip
        """Of parts of `tiles` at most; by cuBLAS, if nothing is `chosen`."""
        count, rows, columns = shape
        self._precision, self._chosen, self._begun = precision, chosen, False
        self.by_tile = precision == "tf32"
        self._splits = 1 if chosen is None else config.splits(rows, columns, tiles, count, chosen)
        self._parts = torch.empty(self._splits, *shape, dtype=torch.float32, device=device)

    def operand(self, tiles: int, channels: int, like: Tensor) -> Tensor:
        """[K, filled, C] for V or dM of that many tiles, and zeros behind them up to whole steps of the kernel.

        For TF32 tiles are contiguous: Hopper's tensor cores take such operands only with the sum's axis contiguous.
        """
        count, filled = self._parts.shape[1], self._whole(tiles)
        if self.by_tile:
            return like.new_empty(count, channels, filled).transpose(1, 2)
        return like.new_empty(count, filled, channels)

    def part(self, operand: Tensor, tiles: int) -> Tensor:
        """The first `tiles` of an operand, and zeros up to whole steps."""
        return operand[:, : self._whole(tiles)]

    def add(self, v: Tensor, dm: Tensor) -> None:
        """V^T dM of one part."""
        left = v.transpose(1, 2)
        if self._chosen is None:
            self._parts[0].baddbmm_(left, dm, beta=int(self._begun))
        else:
            share = self._whole(ceil(v.shape[1] / self._splits))
            sums(left, dm, self._parts, self._precision, share, self._chosen, add=self._begun)
        self._begun = True

    def total(self) -> Tensor:
        """dU; zeros where there was no part."""
        if not self._begun:
            return torch.zeros_like(self._parts[0])
        return self._parts[0] if len(self._parts) == 1 else self._parts.sum(0)

    def _whole(self, tiles: int) -> int:
        """Up to whole steps of the kernel."""
        steps = 1 if self._chosen is None else self._chosen.steps
        return ceil(tiles / steps) * steps


def sums(
    a: Tensor, b: Tensor, c: Tensor, precision: Precision, share: int, chosen: config.Products, *, add: bool = False
) -> None:
    """c [splits, K, rows, columns] = a [K, rows, steps] b [K, steps, columns] of any strides; the z-th split has the
    z-th `share` of the steps. `add`: to what is in c."""
    (count, rows, steps), columns = a.shape, b.shape[2]
    blocks = (ceil(rows / chosen.rows) * ceil(columns / chosen.columns), count, c.shape[0])
    whole = share % chosen.steps == 0 and steps % chosen.steps == 0
    products.products[blocks](
        a, b, c, rows, columns, steps, share, a.stride(0), b.stride(0), a.stride(1), a.stride(2), b.stride(1),
        b.stride(2), c.stride(0), c.stride(1), ROWS=chosen.rows, COLUMNS=chosen.columns, STEPS=chosen.steps,
        GROUP=chosen.group, WHOLE=whole, ADD=add, PRECISION=_input(precision), **_options(chosen),
    )  # fmt: skip


def _input(precision: Precision) -> str:
    """The precision as `tl.dot` names it; it does not look at it for 16-bit numbers."""
    return "tf32" if precision == "tf32" else "ieee"


@cache
def _blocks(chosen: config.Transform) -> dict[str, Any]:
    return {"TILES": chosen.tiles, "CHANNELS": chosen.channels, **_options(chosen)}


@cache
def _options(chosen: config.Transform | config.Products) -> dict[str, Any]:
    stages = {"num_stages": chosen.stages} if isinstance(chosen, config.Products) else {}
    registers = {} if chosen.registers is None else {"maxnreg": chosen.registers}
    return {"num_warps": chosen.warps, **stages, **registers, **OPTIONS}


def _flags(epilogue: Epilogue) -> dict[str, bool]:
    has_bias, has_residual = epilogue.bias is not None, epilogue.residual is not None
    return {"HAS_BIAS": has_bias, "HAS_RESIDUAL": has_residual, "RELU": epilogue.relu}
