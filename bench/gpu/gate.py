"""What our kernels compute, against float64 on fresh numbers, with poisoned memory: by the bound of each element,
and by a limit for the norm of all errors."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor

from bench.gate import SINGLE, finite, input_bound, judged, output_bound
from bench.gpu.problem import Problem
from lrw.backends import composed
from lrw.ops import transform_weight
from lrw_kernels.triton import conv
from lrw_kernels.winograd.error import weight_error

# Half precision is rounded to in the sums of V, three behind each other, and where values are stored: M, the result,
# operands that were no such numbers; bounds count 18 roundings at least (see verify/backends.py).
HALF_ROUNDINGS = (7 / 18) ** 0.5
TF32 = 2.0**-10


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that is allocated empty holds NaN."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.utils.deterministic.fill_uninitialized_memory = before


def spacing(problem: Problem) -> float:
    """Of the arithmetic at 1."""
    if problem.precision == "half":
        return HALF_ROUNDINGS * float(torch.finfo(problem.dtype).eps)
    return TF32 if problem.precision == "tf32" else SINGLE


def norm_limit(problem: Problem, terms: int) -> float:
    """For the norm of errors over that of the result, with sums of `terms` numbers in float32.

    A result carries about one rounding of the arithmetic for each of the transforms' factors, amplified by the tile,
    and those of a long sum, which grow with its root.
    """
    return problem.tile.amplification * (4 * spacing(problem) + SINGLE * terms**0.5)


def passed(problem: Problem, kind: str, u: Tensor, share: float) -> float:
    """The error of a pass on the first inputs and gradients. Raises Red."""
    x, dy, planned = problem.inputs[0], problem.gradients[0], problem.planned(share)
    with poisoned():
        if kind == "forward":
            return _output(problem, conv.forward(x, u, planned), u, share)
        if kind == "input_grad":
            return _input_gradient(problem, conv.input_grad(dy, u, planned, problem.layer.size), u, share)
        du = conv.weight_grad(x, dy, planned)
    kept = list(problem.geometry(share).positions)
    bound = _weight_bounds(problem)[kept].to(du.device)[:, None, None]
    return judged("dU", du, problem.exact_weight_grad[kept], bound, norm_limit(problem, _tiles(problem))).norm


def training(problem: Problem, call: Callable[[], tuple[Tensor, ...]]) -> float:
    """The largest error of what a call gives, of the first inputs and gradients and of the filter: Y and dX of a
    sample taken at random, [N, C, D, H, W], and the filter's gradient dW. Raises Red."""
    with poisoned():
        y, dx, dw = call()
    w = problem.weight.to(problem.dtype).double()
    u = transform_weight(w, problem.tile)
    taps = w[0, 0].numel()
    each = transform_weight(torch.eye(taps, dtype=w.dtype, device=w.device).view(taps, 1, *w.shape[2:]), problem.tile)
    table = each.squeeze(1)  # [T, taps]: dW = sum over positions of table dU, which bounds it too
    exact = torch.einsum("pt,pio->oit", table, problem.exact_weight_grad).view_as(w)
    bound = (_weight_bounds(problem).to(w.device) @ table.abs()).view(w.shape[2:])
    inner = 0, 2, 3, 4, 1
    return max(
        _output(problem, y.permute(inner), u, 1.0),
        _input_gradient(problem, dx.permute(inner), u, 1.0),
        judged("dW", dw, exact, bound, norm_limit(problem, _tiles(problem))).norm,
    )


def _output(problem: Problem, y: Tensor, u: Tensor, share: float) -> float:
    """Of one sample taken at random; all of Y must be numbers."""
    finite("Y", y)
    x, geometry, n = problem.inputs[0], problem.geometry(share), random.SystemRandom().randrange(y.shape[0])
    exact = composed.forward(x[n : n + 1].double(), u.double(), geometry)
    bound = output_bound(problem.tile, geometry.kept, u, x, spacing(problem))
    return judged("Y", y[n : n + 1], exact, bound, norm_limit(problem, problem.layer.cin)).norm


def _input_gradient(problem: Problem, dx: Tensor, u: Tensor, share: float) -> float:
    """Likewise of dX."""
    finite("dX", dx)
    dy, geometry, n = problem.gradients[0], problem.geometry(share), random.SystemRandom().randrange(dx.shape[0])
    exact = composed.input_grad(dy[n : n + 1].double(), u.double(), geometry, problem.layer.size)
    bound = input_bound(problem.tile, geometry.kept, u, dy, spacing(problem))
    return judged("dX", dx[n : n + 1], exact, bound, norm_limit(problem, problem.layer.cout)).norm


def _weight_bounds(problem: Problem) -> Tensor:
    """The largest error of an element of dU, by position [T]."""
    sizes = (float(t[0].abs().max()) for t in (problem.inputs, problem.gradients))
    return torch.from_numpy(weight_error(problem.tile, *sizes, _tiles(problem), spacing(problem)))


def _tiles(problem: Problem) -> int:
    return problem.layer.batch * prod(problem.tile.grid(problem.layer.size))
