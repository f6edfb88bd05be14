"""Tolerances, computed from eps, sum lengths and transform norms (`lrw_kernels.winograd.error`), never tuned.

`assert_close` is the one comparison the laws use: it raises on NaN and on a difference above the tolerance. Draws for
which the tolerance would be so large that nothing could fail are not counted.
"""

import numpy as np
from hypothesis import assume

from lrw_kernels.winograd.error import adjoint_error, domain_error, spatial_error, weight_error
from verify.strategies import Array, Case

USELESS = 1e-2  # error bound over largest output
USELESS_COARSE = 0.1  # the same where numbers have 16 bits, or products 10: no tile is better there
COARSE = 1e-4  # eps from which that is so


def assert_close(actual: Array, expected: Array, tolerance: float | Array, what: str) -> None:
    """|actual - expected| <= tolerance everywhere; `tolerance` broadcasts."""
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(actual).all(), f"{what}: not finite"
    assert np.isfinite(expected).all(), f"{what}: the expectation is not finite"
    error = np.abs(actual - expected)
    excess = np.max(error / np.maximum(tolerance, np.finfo(np.float64).tiny))
    assert excess <= 1, f"{what}: error {error.max():.3g} is {excess:.3g} times the tolerance"


def forward(case: Case, x: Array, u: Array, eps: float) -> float:
    """For Y = layer(x, u), u [K, Cin, Cout]."""
    norms = np.linalg.norm(u, axis=1).max(axis=1)
    error = domain_error(case.geometry.tile, case.geometry.kept, norms, _largest(x), case.cin, eps)
    return _meaningful(error, case, eps)


def input_grad(case: Case, dy: Array, u: Array, eps: float) -> float:
    """For dX."""
    norms = np.linalg.norm(u, axis=2).max(axis=1)
    error = adjoint_error(case.geometry.tile, case.geometry.kept, norms, _largest(dy), case.cout, eps)
    return _meaningful(error, case, eps)


def weight_grad(case: Case, x: Array, dy: Array, eps: float) -> Array:
    """For dU [K, Cin, Cout], one tolerance per column [K, 1, 1]."""
    errors = weight_error(case.geometry.tile, _largest(x), _largest(dy), case.tiles, eps)
    return errors[list(case.geometry.positions)][:, None, None]


def inner(a: Array, tolerance: float | Array) -> float:
    """For <a, b> where b is off by up to `tolerance` per entry: errors add in squares, six standard deviations."""
    return 6 * float(np.sqrt(np.sum((a * tolerance) ** 2)))


def _largest(a: Array) -> float:
    return float(np.abs(a).max())


def _meaningful(tolerance: float, case: Case, eps: float) -> float:
    """A draw whose tile is useless in this dtype (largest tiles in float32) proves nothing: have another one drawn."""
    assume(spatial_error(case.geometry.tile, case.cin, eps) < (USELESS_COARSE if eps > COARSE else USELESS))
    assert 0 < tolerance < np.inf
    return tolerance
