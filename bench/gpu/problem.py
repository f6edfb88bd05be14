"""The tensors of a layer at one precision, several sets of them, and torch's settings for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bench.gpu.clock import rotations
from bench.layers import PADDING, Layer, kept
from lrw.backends import composed
from lrw.geometry import Geometry
from lrw.ops import transform_weight
from lrw_kernels.triton.conv import Layer as Pass
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

DTYPES = {"half": torch.bfloat16, "tf32": torch.float32, "ieee": torch.float32}


@dataclass(frozen=True)
class Problem:
    """A layer, how its products are formed, by tiles of how many outputs an axis, on what."""

    layer: Layer
    precision: Precision
    outputs: int
    device: torch.device
    cache: int  # bytes of the GPU's second level

    @property
    def tile(self) -> Tile:
        return Tile.of(self.outputs)

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.precision]

    def geometry(self, share: float) -> Geometry:
        """With that share of the columns."""
        return Geometry(self.tile, PADDING, None if share == 1 else kept(self.tile, share), share < 1)

    def planned(self, share: float) -> Pass:
        """What our kernels are told."""
        positions = self.geometry(share).positions
        return Pass(str(self.tile), PADDING, positions, self.precision)

    @cached_property
    def sets(self) -> int:
        """How many inputs to take in turn."""
        d, h, w = self.layer.size
        return rotations(self.layer.batch * self.layer.cin * d * h * w * self.dtype.itemsize, self.cache)

    @cached_property
    def inputs(self) -> list[Tensor]:
        """x [N, D, H, W, Cin]."""
        return [self._normal(self.layer.batch, *self.layer.size, self.layer.cin) for _ in range(self.sets)]

    @cached_property
    def gradients(self) -> list[Tensor]:
        """dY [N, D, H, W, Cout]."""
        return [self._normal(self.layer.batch, *self.layer.size, self.layer.cout) for _ in range(self.sets)]

    @cached_property
    def weight(self) -> Tensor:
        """The filter [Cout, Cin, 3, 3, 3] in float32."""
        values = torch.randn(self.layer.cout, self.layer.cin, 3, 3, 3, device=self.device)
        return values / (27 * self.layer.cin) ** 0.5

    def weights(self, share: float) -> Tensor:
        """U [K, Cin, Cout] of the filter."""
        u = transform_weight(self.weight, self.tile)
        return u[list(self.geometry(share).positions)].to(self.dtype).contiguous()

    @cached_property
    def exact_weight_grad(self) -> Tensor:
        """dU [T, Cin, Cout] in float64 for the first inputs and gradients."""
        x, dy = self.inputs[0], self.gradients[0]
        samples = (composed.weight_grad(x[n : n + 1].double(), dy[n : n + 1].double(), self.geometry(1.0))
                   for n in range(x.shape[0]))  # fmt: skip
        total = next(samples)
        for sample in samples:
            total += sample
        return total

    def row(self, kind: str, **more: Any) -> dict[str, Any]:
        """What its rows have in common."""
        layer = self.layer
        own = {"layer": layer.name, "cin": layer.cin, "cout": layer.cout, "size": layer.extent, "batch": layer.batch}
        return {"kind": kind, "precision": self.precision, "tile": self.tile.name, **own, **more}

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)


@contextmanager
def settings(precision: Precision, kind: str = "") -> Iterator[None]:
    """Products of float32 in torch, cuDNN's and cuBLAS's, as `precision` says; for "training", where weights are
    transformed by cuBLAS, its own are float32 throughout, as they are unless a user asks for other.

    By the older setting, which also changes the newer ones: after the newer alone, torch refuses to read the older.
    """
    places: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            plain = kind == "training" and place is torch.backends.cuda.matmul
            place.allow_tf32 = precision == "tf32" and not plain
        yield
    finally:
        for place, old in zip(places, before, strict=True):
            place.allow_tf32 = old
