"""What the laws draw: geometry, sizes and one seed, never floats one by one."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from lrw.geometry import Geometry
from lrw_kernels.winograd import Tile

Array = npt.NDArray[np.float64]
Triple = tuple[int, int, int]

TAPS = (1, 3, 5)
OUTPUTS = (1, 2, 3, 4, 6)
MOST_POSITIONS = 600  # F(6,5)^3 has 1,000; larger tiles only cost time


@dataclass(frozen=True)
class Case:
    """One layer on one input, with the seed its numbers come from."""

    geometry: Geometry
    batch: int
    input_size: Triple
    cin: int
    cout: int
    seed: int

    @property
    def output_size(self) -> Triple:
        """Outputs per axis."""
        return self.geometry.output_size(self.input_size)

    @property
    def tiles(self) -> int:
        """Tiles in the batch."""
        return self.batch * int(np.prod(self.geometry.tile.grid(self.output_size)))

    def normal(self, *shape: int, stream: int = 0) -> Array:
        """Standard normal numbers; equal arguments give equal numbers."""
        return np.random.default_rng([self.seed, stream]).standard_normal(shape)

    def x(self, stream: int = 0) -> Array:
        """An input [N, D, H, W, Cin]."""
        return self.normal(self.batch, *self.input_size, self.cin, stream=stream)

    def y(self) -> Array:
        """A cotangent [N, D', H', W', Cout]."""
        return self.normal(self.batch, *self.output_size, self.cout, stream=10)

    def u(self, stream: int = 20) -> Array:
        """Free weights [K, Cin, Cout]."""
        return self.normal(self.geometry.columns, self.cin, self.cout, stream=stream)

    def w(self) -> Array:
        """Spatial weights [Cout, Cin, rd, rh, rw]."""
        return self.normal(self.cout, self.cin, *self.geometry.tile.kernel_size, stream=30)


@st.composite
def tiles(draw: st.DrawFn) -> Tile:
    """Any tile of the sizes above, with any origin."""
    taps = draw(st.tuples(*[st.sampled_from(TAPS)] * 3))
    outputs = draw(st.tuples(*[st.sampled_from(OUTPUTS)] * 3).filter(lambda m: _positions(m, taps) <= MOST_POSITIONS))
    origin = draw(st.tuples(*(st.integers(0, m - 1) for m in outputs)))
    return Tile.of(outputs, taps, origin=origin)


@st.composite
def cases(draw: st.DrawFn, *, dense: bool = False) -> Case:
    """Any layer: tile, padding, kept set, ragged sizes, batch, channels."""
    tile = draw(tiles())
    padding = draw(st.tuples(*(st.integers(0, r) for r in tile.kernel_size)))
    output = draw(st.tuples(*[st.integers(1, 7)] * 3))
    lacking = [max(0, 1 - (n + r - 1 - 2 * p)) for n, r, p in zip(output, tile.kernel_size, padding, strict=True)]
    size = [n + r - 1 - 2 * p + more for n, r, p, more in zip(output, tile.kernel_size, padding, lacking, strict=True)]
    seed = draw(st.integers(0, 2**32 - 1))
    kept = None if dense or draw(st.booleans()) else _some(tile, seed, draw(st.floats(0, 1)))
    batch, cin, cout = draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    return Case(Geometry(tile, padding, kept), batch, (size[0], size[1], size[2]), cin, cout, seed)


def _some(tile: Tile, seed: int, share: float) -> tuple[int, ...]:
    count = max(1, round(share * tile.positions))
    chosen = np.random.default_rng(seed).choice(tile.positions, count, replace=False)
    return tuple(sorted(int(p) for p in chosen))


def _positions(outputs: Triple, taps: Triple) -> int:
    return int(np.prod([m + r - 1 for m, r in zip(outputs, taps, strict=True)]))
