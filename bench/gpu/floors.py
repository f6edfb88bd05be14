"""The least time of a pass: its kernels one after another, each as long as its bytes or its operations take.

What one kernel hands to the next goes through memory and back; where a cache holds it, a pass may be faster than that.
Starting a kernel costs nothing in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from bench.layers import Layer, kept
from lrw_kernels.triton import config
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

ASSUMED: dict[str, float] = {"copy": 4.3e12, "half": 790e12, "tf32": 395e12, "ieee": 67e12}
"""Of an H200: bytes copied, and operations of products at each precision, a second."""

ITEMSIZE: dict[Precision, int] = {"half": 2, "tf32": 4, "ieee": 4}
SUM = 4  # bytes of a number of dU, whatever its factors are
PASSES = ("forward", "input_grad", "weight_grad")


class Kernel(NamedTuple):
    """Bytes that it reads and writes, operations of its products: two for a multiply-add."""

    moved: float
    operations: float = 0.0


@dataclass(frozen=True)
class Pass:
    """kind: forward, input_grad or weight_grad; of a layer by a tile, at a share of its columns."""

    kind: str
    layer: Layer
    tile: Tile
    columns: float
    precision: Precision

    def ways(self) -> dict[str, list[Kernel]]:
        """The kernels that compute it: "apart", and "fused" where products and inverse are one of ours."""
        cin, cout = self.layer.cin, self.layer.cout
        if self.kind == "weight_grad":
            return {"apart": [*(self._transform(channels) for channels in (cin, cout)), self._summed()]}
        steps, channels = (cin, cout) if self.kind == "forward" else (cout, cin)
        u = self._columns * cin * cout * ITEMSIZE[self.precision]
        v, m = self._domain(steps), self._domain(channels)
        gather, scatter = self._transform(steps), self._transform(channels)
        found = {"apart": [gather, Kernel(v + u + m, self._operations), scatter]}
        if config.fused(self.precision, steps, channels, self.tile.outputs):
            found["fused"] = [gather, Kernel(v + u + self._activations(channels), self._operations)]
        return found

    @property
    def _columns(self) -> int:
        return len(kept(self.tile, self.columns))

    @property
    def _tiles(self) -> int:
        return self.layer.batch * prod(self.tile.grid(self.layer.size))

    @property
    def _operations(self) -> int:
        return 2 * self._columns * self._tiles * self.layer.cin * self.layer.cout

    def _activations(self, channels: int) -> int:
        """Bytes of x or y."""
        return self.layer.batch * prod(self.layer.size) * channels * ITEMSIZE[self.precision]

    def _domain(self, channels: int) -> int:
        """Bytes of V or M."""
        return self._columns * self._tiles * channels * ITEMSIZE[self.precision]

    def _transform(self, channels: int) -> Kernel:
        """Into the domain or out of it."""
        return Kernel(self._activations(channels) + self._domain(channels))

    def _summed(self) -> Kernel:
        """dU of V and dM."""
        cin, cout = self.layer.cin, self.layer.cout
        return Kernel(self._domain(cin) + self._domain(cout) + self._columns * cin * cout * SUM, self._operations)


def milliseconds(kernels: list[Kernel], precision: Precision, ceilings: Mapping[str, float]) -> float:
    """Of kernels one after another; ceilings as in ASSUMED."""
    return 1e3 * sum(max(k.moved / ceilings["copy"], k.operations / ceilings[precision]) for k in kernels)


def least(one: Pass, ceilings: Mapping[str, float]) -> float | None:
    """Milliseconds of the faster way; None where a ceiling is not known."""
    if not {"copy", one.precision} <= set(ceilings):
        return None
    return min(milliseconds(kernels, one.precision, ceilings) for kernels in one.ways().values())


def training(layer: Layer, tile: Tile, precision: Precision, ceilings: Mapping[str, float]) -> float | None:
    """Milliseconds of a forward pass and both gradients, all columns kept, of weights that come as they are, 27 numbers
    a pair of channels, and go into the domain, as their gradient comes out of it."""
    passes = [least(Pass(kind, layer, tile, 1.0, precision), ceilings) for kind in PASSES]
    spatial, pairs = prod(tile.kernel_size) * ITEMSIZE[precision], layer.cin * layer.cout
    there, back = (Kernel(pairs * (spatial + tile.positions * size)) for size in (ITEMSIZE[precision], SUM))
    if None in passes:
        return None
    return sum(filter(None, passes)) + milliseconds([there, back], precision, ceilings)


def direct(layer: Layer, precision: Precision, ceilings: Mapping[str, float]) -> float:
    """Milliseconds of direct convolution: x and the weights read, y written, each once."""
    numbers = layer.batch * prod(layer.size) * (layer.cin + layer.cout) + 27 * layer.cin * layer.cout
    return milliseconds([Kernel(numbers * ITEMSIZE[precision], 2 * layer.batch * layer.macs)], precision, ceilings)
