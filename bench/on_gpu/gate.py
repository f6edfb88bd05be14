"""No number before it is right: what our kernels compute, against float64 on fresh numbers, with poisoned memory.

Two limits hold: the computed bound of `lrw_kernels.winograd.error` for the largest error of an element, and one for the
norm of all errors over that of the result, which no wrong column or tile could keep.
"""

import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from bench.on_gpu.problem import Problem
from lrw.backends import composed
from lrw.ops import transform_weight
from lrw_kernels.triton import conv
from lrw_kernels.winograd import domain_error
from lrw_kernels.winograd.error import adjoint_error, weight_error

# Half precision is rounded to in the sums of V, three behind each other, and where values are stored: M, the result,
# operands that were no such numbers; bounds count 18 roundings at least (see verify/backends.py).
HALF_ROUNDINGS = (7 / 18) ** 0.5
SINGLE, TF32 = 2.0**-23, 2.0**-10


class Red(Exception):
    """What was computed is wrong; the text says how."""


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


def forward(problem: Problem, x: Tensor, u: Tensor, share: float) -> float:
    """The error of Y, of one sample taken at random; all of Y must be numbers."""
    with poisoned():
        y = conv.forward(x, u, problem.planned(share))
    return _output(problem, y, x, u, share)


def input_grad(problem: Problem, dy: Tensor, u: Tensor, share: float) -> float:
    """The error of dX, likewise."""
    with poisoned():
        dx = conv.input_grad(dy, u, problem.planned(share), problem.layer.size)
    return _input_gradient(problem, dx, dy, u, share)


def weight_grad(problem: Problem, share: float) -> float:
    """The error of dU for the first inputs and gradients, of all samples: they are summed in it."""
    with poisoned():
        du = conv.weight_grad(problem.inputs[0], problem.gradients[0], problem.planned(share))
    kept = list(problem.geometry(share).positions)
    bound = torch.from_numpy(_weight_bounds(problem)[kept]).to(du.device)[:, None, None]
    return judged("dU", du, du, problem.exact_weight_grad[kept], bound, norm_limit(problem, _tiles(problem)))


def training(problem: Problem, call: Callable[[], tuple[Tensor, ...]]) -> float:
    """The largest error of what a call gives, of the first inputs and gradients and of the filter: Y and dX of a
    sample taken at random, [N, C, D, H, W], and the filter's gradient dW."""
    with poisoned():
        y, dx, dw = call()
    y, dx = (t.permute(0, 2, 3, 4, 1) for t in (y, dx))
    w = problem.weight.to(problem.dtype).double()
    u = transform_weight(w, problem.tile)
    taps = w[0, 0].numel()
    each = transform_weight(torch.eye(taps, dtype=w.dtype, device=w.device).view(taps, 1, *w.shape[2:]), problem.tile)
    table = each.squeeze(1)  # [T, taps]: dW = sum over positions of table dU, which bounds it too
    exact = torch.einsum("pt,pio->oit", table, problem.exact_weight_grad).view_as(w)
    bound = (torch.from_numpy(_weight_bounds(problem)).to(w.device) @ table.abs()).view(w.shape[2:])
    errors = (
        _output(problem, y, problem.inputs[0], u, 1.0),
        _input_gradient(problem, dx, problem.gradients[0], u, 1.0),
        judged("dW", dw, dw, exact, bound, norm_limit(problem, _tiles(problem))),
    )
    return max(errors)


def _output(problem: Problem, y: Tensor, x: Tensor, u: Tensor, share: float) -> float:
    geometry = problem.geometry(share)
    n = random.SystemRandom().randrange(x.shape[0])
    exact = composed.forward(x[n : n + 1].double(), u.double(), geometry)
    norms, largest = _norms(u, 1), float(x.abs().max())
    bound = domain_error(problem.tile, geometry.kept, norms, largest, problem.layer.cin, spacing(problem))
    return judged("Y", y, y[n : n + 1], exact, bound, norm_limit(problem, problem.layer.cin))


def _input_gradient(problem: Problem, dx: Tensor, dy: Tensor, u: Tensor, share: float) -> float:
    geometry = problem.geometry(share)
    n = random.SystemRandom().randrange(dy.shape[0])
    exact = composed.input_grad(dy[n : n + 1].double(), u.double(), geometry, problem.layer.size)
    norms, largest = _norms(u, 2), float(dy.abs().max())
    bound = adjoint_error(problem.tile, geometry.kept, norms, largest, problem.layer.cout, spacing(problem))
    return judged("dX", dx, dx[n : n + 1], exact, bound, norm_limit(problem, problem.layer.cout))


def _weight_bounds(problem: Problem) -> np.ndarray:
    """The largest error of an element of dU, by position [T]."""
    sizes = (float(t[0].abs().max()) for t in (problem.inputs, problem.gradients))
    return weight_error(problem.tile, *sizes, _tiles(problem), spacing(problem))


def _tiles(problem: Problem) -> int:
    return problem.layer.batch * math.prod(problem.tile.grid(problem.layer.size))


def judged(name: str, whole: Tensor, part: Tensor, exact: Tensor, bound: float | Tensor, limit: float) -> float:
    """Norm of the errors over that of `exact`. Raises Red."""
    if not bool(torch.isfinite(whole).all()):
        raise Red(f"gate: {name} holds values nobody wrote, or overflow")
    if part.shape != exact.shape:
        raise Red(f"gate: {name} is {list(part.shape)}, expected {list(exact.shape)}")
    errors = (part.double() - exact).abs()
    excess = float((errors / bound).max())
    if not excess <= 1:
        raise Red(f"gate: an element of {name} is off by {excess:.2g} times its bound")
    error = float(errors.norm() / exact.norm())
    if not error <= limit:
        raise Red(f"gate: {name} is off by {error:.2g} of its norm; the limit is {limit:.2g}")
    return error


def _norms(u: Tensor, axis: int) -> np.ndarray:
    norms: np.ndarray = u.double().norm(dim=axis).amax(dim=1).cpu().numpy()
    return norms
