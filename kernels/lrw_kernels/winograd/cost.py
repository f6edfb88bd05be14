"""Counts of multiplies, adds and bytes, without a clock: Winograd layers against direct convolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from lrw_kernels.winograd.columns import kept_positions
from lrw_kernels.winograd.tile import Tile, Triple


@dataclass(frozen=True)
class Cost:
    """Work of one forward pass. `products` are the multiplies of the channel products, `multiplies` include the
    transforms' own; `moved` counts bytes read and written, with V and M once each way."""

    products: int
    multiplies: int
    adds: int
    moved: int

    @property
    def flops(self) -> int:
        """Multiplies plus adds."""
        return self.multiplies + self.adds


def direct_cost(
    kernel_size: Sequence[int], cin: int, cout: int, output_size: Sequence[int], *, batch: int = 1, itemsize: int = 4
) -> Cost:
    """Direct convolution: one multiply and one add per tap, channel pair and output."""
    outputs = batch * prod(output_size)
    multiplies = prod(kernel_size) * cin * cout * outputs
    return Cost(
        multiplies, multiplies, multiplies, itemsize * (outputs * (cin + cout) + prod(kernel_size) * cin * cout)
    )


def column_cost(tile: Tile, cin: int, cout: int, output_size: Sequence[int], *, batch: int = 1) -> int:
    """Multiplies one column costs: tiles x Cin x Cout."""
    return batch * prod(tile.grid(output_size)) * cin * cout


def winograd_cost(
    tile: Tile,
    cin: int,
    cout: int,
    output_size: Sequence[int],
    *,
    batch: int = 1,
    kept: Sequence[int] | None = None,
    itemsize: int = 4,
    density: float = 1.0,
) -> Cost:
    """A Winograd layer with transformed weights: input transform, K column products, output transform.

    `density` is the share of products in which neither factor is zero: of weights times of activations.
    """
    k = len(kept_positions(kept, tile))
    tiles = batch * prod(tile.grid(output_size))
    in_mul, in_add = _separable(tile.inputs, tile.inputs, [axis.input_work for axis in tile.axes])
    out_mul, out_add = _separable(tile.outputs, tile.inputs, [axis.output_work for axis in tile.axes])
    products = round(density * k * tiles * cin * cout)
    activations = batch * prod(output_size) * (cin + cout)
    return Cost(
        products,
        products + tiles * (cin * in_mul + cout * out_mul),
        products + tiles * (cin * in_add + cout * out_add),
        itemsize * (activations + k * cin * cout + 2 * k * tiles * (cin + cout)),
    )


def _separable(rows: Triple, columns: Triple, work: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(multiplies, adds) of applying one matrix [rows, columns] per axis, d first, to one channel of one tile; `work`
    has those of each matrix and one vector."""
    lines = (columns[1] * columns[2], rows[0] * columns[2], rows[0] * rows[1])
    multiplies, adds = (sum(n * each for n, each in zip(lines, of, strict=True)) for of in zip(*work, strict=True))
    return multiplies, adds
