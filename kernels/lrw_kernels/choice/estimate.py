"""What a Winograd layer takes by formulas, in seconds: its counts, and the rates of a machine."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod

from lrw_kernels.winograd import Tile, spatial_error, winograd_cost
from lrw_kernels.winograd.tile import Triple

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
