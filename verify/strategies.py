"""What the laws draw: geometry, sizes and one seed, never floats one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from lrw.geometry import Geometry
from lrw_kernels.winograd import Tile, Transform

Array = npt.NDArray[np.float64]
Triple = tuple[int, int, int]

TAPS = range(1, 8)
OUTPUTS = (1, 2, 3, 4, 6)
POINTS = "0 1 -1 1/2 -1/2 2 -2 3/2 -3/4 1/3 -2/3".split()  # as many as F(6,7) takes
MOST_POSITIONS = 600  # F(6,5)^3 has 1,000; larger tiles only cost time
WILDEST = 30.0  # rounding amplification of an axis with drawn points; three worse ones are useless in float32


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
def any_tile(draw: st.DrawFn) -> Tile:
    """Any tile of the sizes above, with any origin, now and then with points of its own."""
    taps = draw(st.tuples(*[st.sampled_from(TAPS)] * 3))
    inputs, axes = list(taps), dict[int, Transform]()
    for i in draw(st.permutations(range(3))):  # in any order, because early axes get more of MOST_POSITIONS
        room = MOST_POSITIONS // prod(inputs[:i] + inputs[i + 1 :]) - taps[i] + 1
        axes[i] = draw(_axes(draw(st.sampled_from([m for m in OUTPUTS if m <= room])), taps[i]))
        inputs[i] = axes[i].t
    origin = draw(st.tuples(*(st.integers(0, axes[i].m - 1) for i in range(3))))
    return Tile((axes[0], axes[1], axes[2]), origin)


@st.composite
def _axes(draw: st.DrawFn, m: int, r: int) -> Transform:
    default, count = Transform.of(m, r), m + r - 2
    if not draw(st.sampled_from([False, False, True])):
        return default
    drawn = Transform.of(m, r, draw(st.lists(st.sampled_from(POINTS), min_size=count, max_size=count, unique=True)))
    return drawn if drawn.amplification < WILDEST else default


@st.composite
def cases(
    draw: st.DrawFn,
    *,
    dense: bool = False,
    tiles: st.SearchStrategy[Tile] | None = None,
    channels: Sequence[int] = (1, 2, 3, 4),
) -> Case:
    """Any layer: tile, padding, kept set, ragged sizes, batch, channels."""
    tile = draw(any_tile() if tiles is None else tiles)
    padding = draw(st.tuples(*(st.integers(0, r) for r in tile.kernel_size)))
    output = draw(st.tuples(*[st.integers(1, 7)] * 3))
    lacking = [max(0, 1 - (n + r - 1 - 2 * p)) for n, r, p in zip(output, tile.kernel_size, padding, strict=True)]
    size = [n + r - 1 - 2 * p + more for n, r, p, more in zip(output, tile.kernel_size, padding, lacking, strict=True)]
    seed = draw(st.integers(0, 2**32 - 1))
    kept = None if dense or draw(st.booleans()) else _some(tile, seed, draw(st.integers(1, tile.positions)))
    batch, cin, cout = draw(st.integers(1, 3)), draw(st.sampled_from(channels)), draw(st.sampled_from(channels))
    return Case(Geometry(tile, padding, kept), batch, (size[0], size[1], size[2]), cin, cout, seed)


def _some(tile: Tile, seed: int, count: int) -> tuple[int, ...]:
    chosen = np.random.default_rng(seed).choice(tile.positions, count, replace=False)
    return tuple(sorted(int(p) for p in chosen))
