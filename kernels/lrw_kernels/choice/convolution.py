"""A convolution as something to be chosen for, and what formulas choose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

from lrw_kernels.choice.estimate import AUTO_OUTPUTS, cheapest_tile, estimated_time
from lrw_kernels.winograd import Tile, direct_cost, spatial_error, winograd_cost
from lrw_kernels.winograd.tile import Triple
from lrw_kernels.winograd.transform import MAX_TAPS

EPS = 2.0**-23
OUTPUTS = (1, 2, 4)  # of tiles that are tried: those between are never much better, and each is kernels to compile


@dataclass(frozen=True)
class Convolution:
    """A convolution of stride 1 with spatial weights: `batch` samples of `size` (D, H, W), `padding` zeros around."""

    taps: Triple
    cin: int
    cout: int
    batch: int
    size: Triple
    padding: Triple

    @property
    def output(self) -> Triple:
        """The size (D', H', W') that comes out."""
        d, h, w = (n + 2 * p - r + 1 for n, p, r in zip(self.size, self.padding, self.taps, strict=True))
        return d, h, w

    @property
    def winograd(self) -> bool:
        """Whether there are transforms for its taps, and something to gain by them."""
        return 1 < max(self.taps) <= MAX_TAPS

    @property
    def text(self) -> str:
        """One line that says everything about it."""
        sizes = ("x".join(map(str, of)) for of in (self.taps, self.size, self.padding))
        return "{} {}->{} on {}x{} padding {}".format(next(sizes), self.cin, self.cout, self.batch, *sizes)


Choose = Callable[[Convolution], Tile | None]
"""The tile of a convolution; None where it is to be computed directly."""


def prior(rtol: float = 1e-4, most_outputs: int = AUTO_OUTPUTS[-1]) -> Choose:
    """The choice of formulas, the same on all machines: the cheapest tile of those with up to `most_outputs` per axis
    whose error bound is within `rtol`, or none where direct convolution does less."""

    def choose(of: Convolution) -> Tile | None:
        if not of.winograd or not likely(of, rtol, 1):
            return None
        shape = of.cin, of.cout, of.output
        tile = cheapest_tile(of.taps, *shape, rtol, most_outputs=most_outputs)
        return tile if winograd_cost(tile, *shape).flops < direct_cost(of.taps, *shape).flops else None

    return choose


def always(tile: int | Sequence[int] | Tile) -> Choose:
    """The choice of `tile`, or of so many outputs per axis, for all convolutions of more than one tap."""
    return lambda of: Tile.of(tile, of.taps) if of.winograd else None


def likely(of: Convolution, rtol: float, count: int) -> list[Tile]:
    """The `count` tiles that formulas find fastest of those whose error bound is within `rtol`, fastest first."""
    sizes = zip(of.taps, of.output, strict=True)
    outputs = product(*([m for m in OUTPUTS if m == 1 or (r > 1 and m <= n)] for r, n in sizes))
    tiles = [Tile.of(each, of.taps) for each in outputs]
    exact = [tile for tile in tiles if spatial_error(tile, of.cin, EPS) <= rtol]
    return sorted(exact, key=lambda tile: estimated_time(tile, of.cin, of.cout, of.output, batch=of.batch))[:count]
