"""Counts of multiplies, adds and bytes, without a clock: Winograd layers against direct convolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import product
from math import prod

from lrw_kernels.winograd.columns import kept_positions
from lrw_kernels.winograd.error import spatial_error
from lrw_kernels.winograd.tile import Tile, Triple
from lrw_kernels.winograd.transform import Matrix

AUTO_OUTPUTS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Rates:
    """What a machine does per second: multiplies and adds of products, bytes of weights from memory and from a cache of
    `cache` bytes, bytes of V and M through the transforms."""

    flops: float
    memory: float
    cached: float
    cache: int
    domain: float


# Two Zen 4 cores at work on the layers of bench/layers.py (bench/notes/cpu.md). One set for all machines, so that
# tile="auto" means the same layer, and the same numbers, everywhere.
RATES = Rates(flops=230e9, memory=35e9, cached=100e9, cache=16 << 20, domain=35e9)
UNEVEN = 1.1  # the model is no better than that: a tile of unequal sides has to win by more
LATE = 0.4  # share of the weights' way from memory that products do not hide


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
    in_mul, in_add = _separable([axis.B for axis in tile.axes])
    out_mul, out_add = _separable([tuple(zip(*axis.A, strict=True)) for axis in tile.axes])
    products = round(density * k * tiles * cin * cout)
    activations = batch * prod(output_size) * (cin + cout)
    return Cost(
        products,
        products + tiles * (cin * in_mul + cout * out_mul),
        products + tiles * (cin * in_add + cout * out_add),
        itemsize * (activations + k * cin * cout + 2 * k * tiles * (cin + cout)),
    )


def estimated_time(
    tile: Tile, cin: int, cout: int, output_size: Sequence[int], *, batch: int = 1, rates: Rates = RATES
) -> float:
    """Seconds of one dense float32 forward pass: products, weights on their way, V and M through the transforms."""
    cost = winograd_cost(tile, cin, cout, output_size, batch=batch)
    weights, domain = 4 * tile.positions * cin * cout, 4 * tile.positions * batch * prod(tile.grid(output_size))
    products = 2 * cost.products / rates.flops
    arriving = weights / (rates.memory if weights > rates.cache else rates.cached)
    return max(products + LATE * arriving, arriving) + domain * (cin + cout) / rates.domain


@lru_cache(maxsize=1024)
def cheapest_tile(
    kernel_size: Triple,
    cin: int,
    cout: int,
    output_size: Triple,
    rtol: float = 1e-4,
    eps: float = 2.0**-23,
    most_outputs: int = AUTO_OUTPUTS[-1],
) -> Tile:
    """The tile that `estimated_time` finds fastest of those with up to `most_outputs` per axis whose error bound stays
    within `rtol`.

    Raises ValueError when no tile does, naming the smallest bound there is.
    """
    sizes = zip(kernel_size, output_size, strict=True)
    choices = [[m for m in AUTO_OUTPUTS if m == 1 or (r > 1 and m <= min(n, most_outputs))] for r, n in sizes]
    tiles = [Tile.of(outputs, kernel_size) for outputs in product(*choices)]
    exact = [tile for tile in tiles if spatial_error(tile, cin, eps) <= rtol]
    if not exact:
        least = min(spatial_error(tile, cin, eps) for tile in tiles)
        raise ValueError(f"rtol: {rtol:g} is below {least:.2g}, the smallest error bound of any tile at {cin} channels")

    def time(tile: Tile) -> float:
        uneven = len({axis.m for axis in tile.axes if axis.r > 1}) > 1
        return estimated_time(tile, cin, cout, output_size) * (UNEVEN if uneven else 1)

    return min(exact, key=time)


def _separable(matrices: Sequence[Matrix]) -> tuple[int, int]:
    """(multiplies, adds) of applying one matrix [p, n] per axis, d first, to one channel of one tile."""
    rows = [len(m) for m in matrices]
    cols = [len(m[0]) for m in matrices]
    lines = (cols[1] * cols[2], rows[0] * cols[2], rows[0] * rows[1])
    multiplies = sum(
        n * sum(abs(v) not in (0, 1) for row in m for v in row) for n, m in zip(lines, matrices, strict=True)
    )
    adds = sum(n * sum(_terms(row) - 1 for row in m) for n, m in zip(lines, matrices, strict=True))
    return multiplies, adds


def _terms(row: Sequence[Fraction]) -> int:
    return max(1, sum(v != 0 for v in row))
