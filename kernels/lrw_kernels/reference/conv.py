"""Winograd convolution and its gradients on NumPy arrays, put together from the plain kernels.

One contraction, three sets of free indices: Y = scatter(A^T, V U), dX = scatter(B^T, (A dY) U^T), dU = V^T (A dY).
Arrays are float32 or float64 throughout; activations [N, D, H, W, C], weights of `direct_conv3d` and
`filter_transform` [Cout, Cin, rd, rh, rw] as torch has them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lrw_kernels.reference import kernels
from lrw_kernels.winograd import Tile, kept_positions
from lrw_kernels.winograd.tile import Triple

Array = npt.NDArray[np.floating]
Kept = Sequence[int] | None


def input_transform(x: Array, tile: Tile, padding: Triple, kept: Kept = None) -> Array:
    """V [K, tiles, Cin] of x [N, D, H, W, Cin]."""
    grid = tile.grid(tile.output_size(x.shape[1:4], padding))
    return _gather(x, tile, "B", tile.starts(padding), grid, kept)


def input_transform_adjoint(
    v: Array, tile: Tile, padding: Triple, input_size: Triple, batch: int, kept: Kept = None
) -> Array:
    """dX [N, D, H, W, Cin] of dV [K, tiles, Cin]: overlap-add of B^T dV."""
    grid = tile.grid(tile.output_size(input_size, padding))
    return _scatter(v, tile, "B", tile.starts(padding), grid, (batch, *input_size), kept)


def output_transform(m: Array, tile: Tile, output_size: Triple, batch: int, kept: Kept = None) -> Array:
    """Y [N, D, H, W, Cout] of M [K, tiles, Cout]."""
    return _scatter(m, tile, "A", tile.starts(), tile.grid(output_size), (batch, *output_size), kept)


def output_transform_adjoint(dy: Array, tile: Tile, kept: Kept = None) -> Array:
    """dM [K, tiles, Cout] of dY [N, D, H, W, Cout]."""
    return _gather(dy, tile, "A", tile.starts(), tile.grid(dy.shape[1:4]), kept)


def filter_transform(w: Array, tile: Tile, kept: Kept = None) -> Array:
    """U [K, Cin, Cout] of w [Cout, Cin, rd, rh, rw]."""
    cout, cin = w.shape[:2]
    taps = np.ascontiguousarray(w.transpose(2, 3, 4, 1, 0)).reshape(1, *w.shape[2:], cin * cout)
    return _gather(taps, tile, "G", (0, 0, 0), (1, 1, 1), kept).reshape(-1, cin, cout)


def column_products(a: Array, b: Array) -> Array:
    """[K, I, L]: K independent products of a [K, I, J] and b [K, J, L]."""
    out = np.full((a.shape[0], a.shape[1], b.shape[2]), np.nan, a.dtype)
    kernels.column_products(np.ascontiguousarray(a), np.ascontiguousarray(b), out)
    return out


def winograd_conv3d(x: Array, u: Array, tile: Tile, padding: Triple, kept: Kept = None) -> Array:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]."""
    m = column_products(input_transform(x, tile, padding, kept), u)
    return output_transform(m, tile, tile.output_size(x.shape[1:4], padding), x.shape[0], kept)


def winograd_input_grad(
    dy: Array, u: Array, tile: Tile, padding: Triple, input_size: Triple, kept: Kept = None
) -> Array:
    """dX [N, D, H, W, Cin] of dY [N, D', H', W', Cout]."""
    dv = column_products(output_transform_adjoint(dy, tile, kept), u.transpose(0, 2, 1))
    return input_transform_adjoint(dv, tile, padding, input_size, dy.shape[0], kept)


def winograd_weight_grad(x: Array, dy: Array, tile: Tile, padding: Triple, kept: Kept = None) -> Array:
    """dU [K, Cin, Cout]."""
    v = input_transform(x, tile, padding, kept)
    return column_products(v.transpose(0, 2, 1), output_transform_adjoint(dy, tile, kept))


def direct_conv3d(x: Array, w: Array, padding: Triple) -> Array:
    """Direct convolution of x [N, D, H, W, Cin] with w [Cout, Cin, rd, rh, rw], zero padding [3]."""
    taps = np.ascontiguousarray(w.transpose(2, 3, 4, 1, 0))
    size = [n + 2 * p - r + 1 for n, p, r in zip(x.shape[1:4], padding, taps.shape[:3], strict=True)]
    y = np.full((x.shape[0], *size, w.shape[0]), np.nan, x.dtype)
    kernels.direct_conv3d(np.ascontiguousarray(x), taps, np.array(padding), y)
    return y


def _gather(x: Array, tile: Tile, name: str, start: Triple, grid: Triple, kept: Kept) -> Array:
    positions = kept_positions(kept, tile)
    v = np.full((len(positions), x.shape[0] * int(np.prod(grid)), x.shape[4]), np.nan, x.dtype)
    matrices = [axis.array(name, x.dtype) for axis in tile.axes]
    geometry = (np.array(start), np.array(tile.outputs), np.array(grid), np.array(positions))
    kernels.gather_transform(np.ascontiguousarray(x), *matrices, *geometry, *_scratch(tile, x), v)
    return v


def _scatter(
    v: Array, tile: Tile, name: str, start: Triple, grid: Triple, size: tuple[int, int, int, int], kept: Kept
) -> Array:
    y = np.full((*size, v.shape[2]), np.nan, v.dtype)
    matrices = [np.ascontiguousarray(axis.array(name, v.dtype).T) for axis in tile.axes]
    geometry = (np.array(start), np.array(tile.outputs), np.array(grid), np.array(kept_positions(kept, tile)))
    kernels.scatter_transform(np.ascontiguousarray(v), *matrices, *geometry, *_scratch(tile, y), y)
    return y


def _scratch(tile: Tile, x: Array) -> tuple[Array, Array]:
    """Two NaN-filled buffers of [t_d, t_h, t_w, C]; t is the largest of m, r and t on each axis."""
    patch, scratch = np.full((2, tile.positions * x.shape[-1]), np.nan, x.dtype)
    return patch, scratch
