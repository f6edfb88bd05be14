"""How large rounding errors may be, computed from eps, sum lengths and transform norms; and the importance of a column.

Model (Higham & Mary 2019, probabilistic rounding): roundings are independent and of mean zero, so a value formed in c
steps carries a relative error of about sqrt(c) eps, and errors of different positions add in squares. What position p
contributes to an output is at most |A_p|_max * |B_p|_2 * |U_p|_2 * max|x|, each factor a product over the axes.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import numpy as np
import numpy.typing as npt

from lrw_kernels.winograd.columns import kept_positions
from lrw_kernels.winograd.tile import Tile
from lrw_kernels.winograd.transform import Transform

PerAxis = Callable[[Transform], npt.NDArray[np.float64]]

# The largest of n Gaussian errors is sqrt(2 ln n) standard deviations: 5.5 for four million outputs, rounded up.
TAIL = 6.0


def importance(tile: Tile, kept: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
    """F [K]: RMS change of an output when a coefficient of size one is deleted, for white-noise input.

    F_p = prod over axes of |row p of B|_2 |row p of A|_2 (Yu, Park, Naumov, arXiv 1901.02132, without the division by
    the minimum). |u| F does not change when G is rescaled against B or A; |u| alone does.
    """
    return _positions(tile, kept, lambda axis: _norms(axis.array("A")) * _norms(axis.array("B")))


def output_gram(tile: Tile) -> npt.NDArray[np.float64]:
    """H [T, T]: for white-noise input, weights u [T] of one channel pair give a tile's outputs the mean square u^T H u.

    H = (A A^T) * (B B^T) on each axis, Kronecker product over the axes; its diagonal is `importance` squared, the rest
    is how positions interfere.
    """
    tables = [(axis.array("A"), axis.array("B")) for axis in tile.axes]
    d, h, w = ((a @ a.T) * (b @ b.T) for a, b in tables)
    return np.kron(np.kron(d, h), w)


def output_norms(tile: Tile, kept: Sequence[int] | None = None) -> npt.NDArray[np.float64]:
    """|A_p|_2 [K]: how far a unit at position p spreads over the outputs, prod over axes of |row p of A|_2."""
    return _positions(tile, kept, lambda axis: _norms(axis.array("A")))


def domain_error(
    tile: Tile, kept: Sequence[int] | None, column_norms: npt.ArrayLike, x_max: float, channels: int, eps: float
) -> float:
    """Largest absolute error to expect in an output of a Winograd-domain convolution.

    column_norms [K] is max over output channels of |U[p, :, cout]|_2, x_max the largest |x|, channels the length of
    the channel sum, eps the spacing of the arithmetic at 1. For the gradient with respect to the input, where
    A and B swap places, call `adjoint_error`.
    """
    return _error(tile, kept, column_norms, x_max, channels, eps, ("A", "B"))


def adjoint_error(
    tile: Tile, kept: Sequence[int] | None, column_norms: npt.ArrayLike, y_max: float, channels: int, eps: float
) -> float:
    """As `domain_error` for the gradient with respect to the input; column_norms are over output channels."""
    overlap = sqrt(float(np.prod([-(-axis.t // axis.m) for axis in tile.axes])))
    return overlap * _error(tile, kept, column_norms, y_max, channels, eps, ("B", "A"))


def weight_error(tile: Tile, x_max: float, y_max: float, tiles: int, eps: float) -> npt.NDArray[np.float64]:
    """[T]: largest absolute error to expect in column p of the gradient with respect to U, a sum over `tiles` tiles."""
    size = _positions(tile, None, lambda axis: _norms(axis.array("A")) * _norms(axis.array("B")))
    return TAIL * eps * sqrt(_steps(tile) + tiles) * sqrt(tiles) * x_max * y_max * size


def spatial_error(tile: Tile, channels: int, eps: float, stored: float = 0.0) -> float:
    """Largest error over largest output to expect when U comes from spatial weights, for white inputs and weights.

    eps sqrt(c) times the tile's amplification: what `tile="auto"` holds against the caller's rtol. Where U is then
    rounded to numbers of spacing `stored`, each of its values is off by up to half of that, one rounding more, which
    the tile amplifies as it does the others.
    """
    return sqrt(eps**2 * (_steps(tile) + channels) + (stored / 2) ** 2) * tile.amplification


def _error(
    tile: Tile,
    kept: Sequence[int] | None,
    norms: npt.ArrayLike,
    scale: float,
    channels: int,
    eps: float,
    sides: tuple[str, str],
) -> float:
    outer, inner = sides
    size = _positions(tile, kept, lambda axis: np.abs(axis.array(outer)).max(axis=1) * _norms(axis.array(inner)))
    return TAIL * eps * sqrt(_steps(tile) + channels) * scale * float(np.linalg.norm(size * np.asarray(norms)))


def _steps(tile: Tile) -> int:
    """Roundings on the way of one value through the three transforms, tables and products included."""
    return sum(axis.t + axis.r + axis.t + 3 for axis in tile.axes)


def _positions(tile: Tile, kept: Sequence[int] | None, per_axis: PerAxis) -> npt.NDArray[np.float64]:
    """Outer product over the axes of a per-position factor, at the kept positions."""
    d, h, w = (per_axis(axis) for axis in tile.axes)
    return np.einsum("i,j,k->ijk", d, h, w).ravel()[list(kept_positions(kept, tile))]


def _norms(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.linalg.norm(rows, axis=1)
