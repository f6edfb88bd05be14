"""No number before it is right: every bench asks here whether what was computed is within its bound of float64."""

from math import inf
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lrw_kernels.winograd import Tile, domain_error
from lrw_kernels.winograd.error import adjoint_error

SINGLE = 2.0**-23


class Red(Exception):
    """What was computed is wrong; the text says how."""


class Error(NamedTuple):
    """The largest error over the largest exact number, and the norm of all errors over that of all exact numbers."""

    largest: float
    norm: float


def finite(name: str, values: Tensor) -> None:
    """Raises Red where some of `values` are no numbers."""
    if not bool(torch.isfinite(values).all()):
        raise Red(f"gate: {name} holds values nobody wrote, or overflow")


def judged(name: str, values: Tensor, exact: Tensor, bound: float | Tensor, limit: float = inf) -> Error:
    """The error of `values` against `exact` in float64; `bound` is for each element, `limit` for the norm, which no
    wrong column or tile could keep. Raises Red.
    """
    if values.shape != exact.shape:
        raise Red(f"gate: {name} is {list(values.shape)}, expected {list(exact.shape)}")
    finite(name, values)
    errors = (values.double() - exact).abs()
    excess = float((errors / bound).max())
    if not excess <= 1:
        raise Red(f"gate: an element of {name} is off by {excess:.2g} times its bound; nothing was measured")
    error = Error(float(errors.max() / exact.abs().max()), float(errors.norm() / exact.norm()))
    if not error.norm <= limit:
        raise Red(f"gate: {name} is off by {error.norm:.2g} of its norm; the limit is {limit:.2g}")
    return error


def output_bound(tile: Tile, kept: tuple[int, ...] | None, u: Tensor, x: Tensor, spacing: float = SINGLE) -> float:
    """The largest error of an output of the weights u [K, Cin, Cout] and any of the inputs x, with arithmetic of that
    spacing at 1."""
    return domain_error(tile, kept, _norms(u, 1), float(x.abs().max()), u.shape[1], spacing)


def input_bound(tile: Tile, kept: tuple[int, ...] | None, u: Tensor, dy: Tensor, spacing: float = SINGLE) -> float:
    """Likewise of the gradient of the input, of the gradients dy of the output."""
    return adjoint_error(tile, kept, _norms(u, 2), float(dy.abs().max()), u.shape[2], spacing)


def _norms(u: Tensor, axis: int) -> np.ndarray:
    norms: np.ndarray = u.double().norm(dim=axis).amax(dim=1).cpu().numpy()
    return norms
