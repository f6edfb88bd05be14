"""A training step of one layer, forward and both gradients: a Winograd layer trained in its domain against F.conv3d."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import geometric_mean

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import page, rows
from bench.gate import input_bound, judged
from bench.layers import PADDING, Layer
from lrw.geometry import Geometry
from lrw.ops import domain_conv3d, transform_weight
from lrw.timing import interleaved
from lrw_kernels.winograd import Tile


@dataclass(frozen=True)
class Row(rows.Row):
    """A layer: milliseconds of a step, the error of dX over its largest number."""

    case: str
    tile: str
    backend: str
    torch_form: str
    torch_ms: float
    lrw_ms: float
    speedup: float
    error: float

    @property
    def kind(self) -> str:
        """What it is averaged with."""
        return "a training step"

    @property
    def line(self) -> str:
        """The row for people."""
        torch_ms, error = f"torch {self.torch_ms:8.2f} ms ({self.torch_form})", f"error of dX {self.error:.1e}"
        return f"{self.case:16s} {self.tile:16s} {torch_ms}  lrw {self.lrw_ms:8.2f} ms  {self.speedup:5.2f}x  {error}"


def measure(layer: Layer, tile: Tile, backend: str, seconds: float) -> list[Row]:
    """One row. Raises Red, with nothing timed, where dX is off by more than its computed bound."""
    x = torch.randn(1, layer.cin, *layer.size)
    weight = torch.randn(layer.cout, layer.cin, 3, 3, 3) / (27 * layer.cin) ** 0.5
    dy = torch.randn(1, layer.cout, *layer.size)
    u, geometry = transform_weight(weight, tile), Geometry(tile, PADDING).arguments
    last = [t.contiguous(memory_format=torch.channels_last_3d) for t in (x, weight, dy)]
    direct = partial(F.conv3d, padding=1)
    ours = partial(domain_conv3d, bias=None, layer=geometry, backend=backend)
    candidates = {
        "contiguous": _step(direct, x, weight, dy),
        "channels_last": _step(direct, *last),
        "lrw": _step(ours, last[0], u, last[2]),
    }
    exact = torch.nn.grad.conv3d_input(x.shape, weight.double(), dy.double(), padding=1)
    error = judged(f"dX of {layer.name}", candidates["lrw"]()[0], exact, input_bound(tile, None, u, dy)).largest
    times = {key: 1e3 * t for key, t in interleaved(candidates, seconds=seconds, rounds=(5, 100)).items()}
    form = min(("contiguous", "channels_last"), key=times.__getitem__)
    return [Row(layer.name, tile.name, backend, form, times[form], times["lrw"], times[form] / times["lrw"], error)]


def table(found: Sequence[Row]) -> list[str]:
    """A training step by layer."""
    lines = [[row.case, row.tile, f"{row.torch_ms}", f"{row.lrw_ms}", f"{row.speedup:.1f}x"] for row in found]
    lines.append(["geometric mean", "", "", "", f"{geometric_mean([row.speedup for row in found]):.1f}x"])
    return page.tight(page.table(("layer", "tile", "torch ms", "lrw ms", ""), lines))


def _step(
    convolve: Callable[[Tensor, Tensor], Tensor], x: Tensor, w: Tensor, dy: Tensor
) -> Callable[[], tuple[Tensor, ...]]:
    """Weights change before every step, as an optimizer's do: nothing derived from them can be kept."""
    x, w = x.detach().requires_grad_(), w.detach().clone().requires_grad_()

    def step() -> tuple[Tensor, ...]:
        with torch.no_grad():
            w[(0,) * w.dim()].mul_(1.0)
        return torch.autograd.grad(convolve(x, w), (x, w), dy)

    return step
