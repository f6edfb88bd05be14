"""The portable backend: tensor operations alone, for any device torch has, one axis at a time.

An axis is gathered (windows of n values every `step`, times a matrix [rows, n]) or scattered (the adjoint: a matrix
[n, rows], then overlap-add). Doing d, h and w in turn expands the data by t/m three times instead of copying t^3 / m^3
at once. Positions lead, so that the products are one batched GEMM: z [positions so far, N, d, h, w, C].
"""

from collections.abc import Sequence
from functools import lru_cache
from math import prod

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.backends.precision import widened
from lrw.geometry import Geometry
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.tile import Triple

CACHED_VALUES = 1 << 21  # V and M of one part of a batch on a CPU, in numbers


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Tensor operations run wherever torch does."""
    return None


def forward(x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]; torch differentiates this one alone."""
    x, u = widened(x, u)
    start, size = geometry.tile.starts(), geometry.output_size(x.shape[1:4])
    parts = _parts(x.shape[0], geometry, size, u, x.device)
    y = _joined([_scatter(torch.bmm(domain_input(x[p], geometry), u), geometry, "A", start, size) for p in parts])
    return epilogue.apply(y)


def domain_input(x: Tensor, geometry: Geometry) -> Tensor:
    """V [K, tiles, Cin] of x [N, D, H, W, Cin], that weights are multiplied with; rectified where the layer says so."""
    grid = geometry.tile.grid(geometry.output_size(x.shape[1:4]))
    v = _gather(x, geometry, "B", geometry.tile.starts(geometry.padding), grid)
    return torch.relu(v) if geometry.rectified else v


def input_grad(dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]."""
    dy, u = widened(dy, u)
    start, back = geometry.tile.starts(geometry.padding), u.transpose(1, 2)
    parts = _parts(dy.shape[0], geometry, dy.shape[1:4], u, dy.device)
    return _joined(
        [_scatter(torch.bmm(_output_adjoint(dy[p], geometry), back), geometry, "B", start, input_size) for p in parts]
    )


def weight_grad(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
    """dU [K, Cin, Cout]."""
    x, dy = widened(x, dy)
    du = x.new_zeros(geometry.columns, x.shape[4], dy.shape[4])
    for p in _parts(x.shape[0], geometry, dy.shape[1:4], du, x.device):
        du.baddbmm_(domain_input(x[p], geometry).transpose(1, 2), _output_adjoint(dy[p], geometry))
    return du


def _parts(batch: int, geometry: Geometry, output_size: Sequence[int], u: Tensor, device: torch.device) -> list[slice]:
    """The batch cut so that one part's V and M stay in a CPU's cache; other devices take it whole."""
    if device.type != "cpu":
        return [slice(None)]
    sample = geometry.tile.positions * prod(geometry.tile.grid(output_size)) * (u.shape[1] + u.shape[2])
    each = max(1, CACHED_VALUES // sample)
    return [slice(first, first + each) for first in range(0, max(batch, 1), each)]


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _output_adjoint(dy: Tensor, geometry: Geometry) -> Tensor:
    return _gather(dy, geometry, "A", geometry.tile.starts(), geometry.tile.grid(dy.shape[1:4]))


def _gather(x: Tensor, geometry: Geometry, name: str, start: Triple, grid: Triple) -> Tensor:
    """[K, tiles, C]: `name`'s matrices applied to the patch of every tile."""
    matrices = _matrices(geometry.tile, name, x.dtype, x.device)
    step = geometry.tile.outputs
    spans = [(g - 1) * s + m.shape[1] for g, s, m in zip(grid, step, matrices, strict=True)]
    z = _fit(x, [-s for s in start], [span + s - n for span, s, n in zip(spans, start, x.shape[1:4], strict=True)])[
        None
    ]
    for axis, (matrix, every) in enumerate(zip(matrices, step, strict=True)):
        rows, n = matrix.shape
        windows = z.unfold(axis + 2, n, every).movedim(-1, 1)  # [P, n, N, ..., tiles on axis, ..., C]
        shape = windows.shape
        z = torch.matmul(matrix, windows.reshape(shape[0], n, prod(shape[2:]))).view(shape[0] * rows, *shape[2:])
    return _select(z.flatten(1, -2), geometry)


def _scatter(v: Tensor, geometry: Geometry, name: str, start: Triple, size: Triple) -> Tensor:
    """[N, *size, C]: the adjoint of `_gather` on v [K, tiles, C]."""
    step = geometry.tile.outputs
    sizes = geometry.output_size(size) if name == "B" else size
    grid = geometry.tile.grid(sizes)
    matrices = _matrices(geometry.tile, name, v.dtype, v.device)
    z = _spread(v, geometry).unflatten(1, (v.shape[1] // prod(grid), *grid))
    for axis in (2, 1, 0):
        rows, n = matrices[axis].shape
        lines = z.shape[0] // rows
        values = torch.matmul(matrices[axis].t(), z.reshape(lines, rows, prod(z.shape[1:]))).view(
            lines, n, *z.shape[1:]
        )
        z = _overlap_add(values, axis + 3, step[axis])
    z = z[0]
    right = [n - span - s for n, span, s in zip(size, z.shape[1:4], start, strict=True)]
    return _fit(z, start, right).contiguous()


def _overlap_add(values: Tensor, dim: int, step: int) -> Tensor:
    """Merge values [P, n, ...] with tiles along `dim`: value i of tile j lands at j * step + i; drops axis 1.

    Tiles are cut into runs of `step` values: the first run of every tile fills the result, later ones are added one
    tile further on. The result may end in a run that is only partly used.
    """
    runs = [run.movedim(1, dim) for run in values.split(step, dim=1)]  # each [P, ..., tiles, <= step, ...]
    if len(runs) == 1 and runs[0].shape[dim] == step:  # neighbours do not overlap: only an interleave
        return runs[0].flatten(dim - 1, dim)
    shape = list(runs[0].shape)
    tiles, shape[dim - 1], shape[dim] = shape[dim - 1], shape[dim - 1] + len(runs) - 1, step
    out = values.new_empty(shape)
    out.narrow(dim - 1, 0, tiles).copy_(runs[0])
    out.narrow(dim - 1, tiles, len(runs) - 1).zero_()
    for later, run in enumerate(runs[1:], 1):
        out.narrow(dim - 1, later, tiles).narrow(dim, 0, run.shape[dim]).add_(run)
    return out.flatten(dim - 1, dim)


def _fit(x: Tensor, left: Sequence[int], right: Sequence[int]) -> Tensor:
    """Grow (or, where negative, crop) the three spatial axes of x [N, D, H, W, C]."""
    pads = [side for pair in zip(reversed(left), reversed(right), strict=True) for side in pair]
    return F.pad(x, [0, 0, *pads])


def _select(v: Tensor, geometry: Geometry) -> Tensor:
    """The kept positions [K, tiles, C] of v [T, tiles, C]."""
    if geometry.kept is None:
        return v
    return v.index_select(0, _index(geometry.kept, v.device))


def _spread(v: Tensor, geometry: Geometry) -> Tensor:
    """All positions [T, tiles, C] of v [K, tiles, C], with zeros at dropped ones."""
    if geometry.kept is None:
        return v
    full = v.new_zeros(prod(geometry.tile.inputs), *v.shape[1:])
    return full.index_copy_(0, _index(geometry.kept, v.device), v)


def _matrices(tile: Tile, name: str, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(table, dtype=dtype, device=device) for table in _tables(tile, name))


# Tables are kept as arrays, not as tensors: those made in inference mode would be no use in training.
@lru_cache(maxsize=256)
def _tables(tile: Tile, name: str) -> tuple[npt.NDArray[np.floating], ...]:
    return tuple(axis.array(name) for axis in tile.axes)


def _index(kept: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(kept, device=device)
