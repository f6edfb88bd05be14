"""A training step of one layer, forward and both gradients: a Winograd layer trained in its domain against F.conv3d."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.layers import Layer
from lrw.geometry import Geometry
from lrw.ops import domain_conv3d, transform_weight
from lrw.timing import interleaved
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.error import adjoint_error

EPS = 2.0**-23


def measure(case: Layer, tile: Tile, backend: str, seconds: float) -> dict[str, Any]:
    """One row. Raises AssertionError, with nothing timed, where dX is off by more than its computed bound."""
    x = torch.randn(1, case.cin, *case.size)
    weight = torch.randn(case.cout, case.cin, 3, 3, 3) / (27 * case.cin) ** 0.5
    dy = torch.randn(1, case.cout, *case.size)
    u = transform_weight(weight, tile)
    layer = Geometry(tile, (1, 1, 1)).arguments
    last = [t.contiguous(memory_format=torch.channels_last_3d) for t in (x, weight, dy)]
    candidates = {
        "contiguous": _step(lambda x, w: F.conv3d(x, w, padding=1), x, weight, dy),
        "channels_last": _step(lambda x, w: F.conv3d(x, w, padding=1), *last),
        "lrw": _step(lambda x, u: domain_conv3d(x, u, None, layer, backend), last[0], u, last[2]),
    }
    error = _gate(case, candidates["lrw"]()[0], weight, dy, u, tile)
    times = interleaved(candidates, seconds=seconds, rounds=(5, 100))
    form = min(("contiguous", "channels_last"), key=times.__getitem__)
    return {
        "case": case.name,
        "tile": tile.name,
        "backend": backend,
        "torch_form": form,
        "torch_ms": round(1e3 * times[form], 3),
        "lrw_ms": round(1e3 * times["lrw"], 3),
        "speedup": round(times[form] / times["lrw"], 3),
        "error": float(f"{error:.2e}"),
    }


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    torch_ms, error = f"torch {row['torch_ms']:8.2f} ms ({row['torch_form']})", f"error of dX {row['error']:.1e}"
    ours = f"lrw {row['lrw_ms']:8.2f} ms  {row['speedup']:5.2f}x"
    return f"{row['case']:16s} {row['tile']:16s} {torch_ms}  {ours}  {error}"


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


def _gate(case: Layer, dx: Tensor, weight: Tensor, dy: Tensor, u: Tensor, tile: Tile) -> float:
    exact = torch.nn.grad.conv3d_input((1, case.cin, *case.size), weight.double(), dy.double(), padding=1)
    error = float((dx.double() - exact).abs().max())
    norms = u.norm(dim=2).amax(dim=1).numpy()
    bound = adjoint_error(tile, None, norms, float(dy.abs().max()), case.cout, EPS)
    assert error <= bound, f"{case.name}: error {error:.2e} of dX above the bound {bound:.2e}; nothing was timed"
    return error / float(exact.abs().max())
