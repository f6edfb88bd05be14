"""What a layer does to a few of its tiles: transformed inputs, and the outputs that were wanted there.

A voxel o of a tile is y_o = sum over positions p and channels c of A[p, o] V[p, c] U[p, c, :], linear in U: its
features are phi[p, c] = A[p, o] V[p, c]. Only voxels inside the output count, so that ragged edges weigh what they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from lrw.activations import compute_dtype
from lrw.geometry import Geometry
from lrw_kernels.winograd import Tile

PART = 1 << 24  # numbers that one part of a product may take


@dataclass(frozen=True)
class Patches:
    """Tiles of one pass: v [T, tiles, Cin] and inside, bool [tiles, m^3], which of their voxels lie in the output."""

    v: Tensor
    inside: Tensor

    @staticmethod
    def of(x: Tensor, geometry: Geometry, chosen: Tensor) -> "Patches":
        """The `chosen` tiles [tiles] (numbered over samples and grid) of x [N, Cin, D, H, W], in float32 at least."""
        tile, output_size = geometry.tile, geometry.output_size(x.shape[2:])
        grid = tile.grid(output_size)
        starts = tile.starts(geometry.padding)
        ends = [(g - 1) * m + t + s for g, m, t, s in zip(grid, tile.outputs, tile.inputs, starts, strict=True)]
        patches = _windows(x, starts, ends, tile.inputs, tile.outputs)
        v = patches[_places(chosen, len(x), grid)].to(compute_dtype(x.dtype))  # [tiles, Cin, td, th, tw]
        for axis in tile.axes:
            matrix = torch.from_numpy(axis.array("B")).to(v)
            v = torch.tensordot(v, matrix, dims=([2], [1]))  # the axis moves to the end: in order after three
        v = v.flatten(2).permute(2, 0, 1).contiguous()
        return Patches(torch.relu(v) if geometry.rectified else v, inside(tile, output_size, chosen))


def outputs_at(y: Tensor, bias: Tensor | None, tile: Tile, chosen: Tensor) -> Tensor:
    """[m^3, tiles, Cout]: what y [N, Cout, D, H, W] less `bias` is at the `chosen` tiles, zero outside."""
    y = y if bias is None else y - bias.detach().view(1, -1, 1, 1, 1)
    grid, starts = tile.grid(y.shape[2:]), tile.starts()
    ends = [g * m + s for g, m, s in zip(grid, tile.outputs, starts, strict=True)]
    patches = _windows(y, starts, ends, tile.outputs, tile.outputs)
    found = patches[_places(chosen, len(y), grid)].to(compute_dtype(y.dtype))
    return found.flatten(2).permute(2, 0, 1).contiguous()


@dataclass(frozen=True)
class Tiles:
    """v [T, tiles, Cin] of the tiles that are looked at ([K, tiles, Cin] after `only`), inside [shapes, m^3] which
    voxels a tile of each shape has in the output, and the shape [tiles] of each; table [T, m^3]: A of all axes,
    float64."""

    v: Tensor
    shape: Tensor
    inside: Tensor
    table: Tensor

    @staticmethod
    def of(parts: Sequence[Patches], tile: Tile) -> "Tiles":
        """Of several passes together."""
        inside, shape = torch.cat([part.inside for part in parts]).unique(dim=0, return_inverse=True)
        v = torch.cat([part.v for part in parts], dim=1)
        d, h, w = (torch.from_numpy(axis.array("A")).double() for axis in tile.axes)
        return Tiles(v, shape.to(v.device), inside.to(v), torch.kron(torch.kron(d, h), w).to(v.device))

    def only(self, kept: Sequence[int]) -> "Tiles":
        """The `kept` positions of the same tiles: v [K, tiles, Cin], table [K, m^3]."""
        at = list(kept)
        return self if len(at) == len(self.v) else replace(self, v=self.v[at], table=self.table[at])

    @property
    def voxels(self) -> int:
        """How many outputs they are, of each channel."""
        return int(self.inside.sum(1)[self.shape].sum())

    def gram(self, channels: slice | Tensor | None = None) -> Tensor:
        """G [T, T], float64: the sum of phi phi^T over voxels, mean over `channels` (default: all)."""
        return self._whole_gram if channels is None else self._gram(channels)

    @cached_property
    def _whole_gram(self) -> Tensor:
        return self._gram(slice(None))

    def _gram(self, channels: slice | Tensor) -> Tensor:
        total = torch.zeros_like(self.table @ self.table.T)
        for table, v in self._by_shape(channels):
            flat = v.flatten(1)
            total += (table @ table.T) * (flat @ flat.T).double() / max(v.shape[2], 1)
        return total

    def features(self) -> Tensor:
        """N [K Cin, K Cin], float64: the sum of phi phi^T over voxels, phi [K Cin]."""
        cin = self.v.shape[2]
        total = self.table.new_zeros(len(self.v) * cin, len(self.v) * cin)
        for table, v in self._by_shape():
            rows = v.transpose(0, 1).flatten(1)  # [tiles, K Cin]
            joint = table @ table.T
            total += joint.repeat_interleave(cin, 0).repeat_interleave(cin, 1).mul_(rows.T @ rows)
        return total

    @cached_property
    def energy(self) -> Tensor:
        """[T, Cin], float64: the sum of phi^2 over voxels."""
        total = self.table.new_zeros(len(self.v), self.v.shape[2])
        for table, v in self._by_shape():
            total += table.square().sum(1)[:, None] * torch.linalg.vector_norm(v, dim=1, dtype=torch.float64).square()
        return total

    def channels(self) -> Tensor:
        """C [Cin, Cin], float64: how channels work together, each position weighing the same."""
        each = self.energy.sum(1)
        scale = (self.table.square().sum(1) / torch.where(each > 0, each, torch.inf)).sqrt()
        flat = (self.v * scale.to(self.v)[:, None, None]).flatten(0, 1)
        return (flat.T @ flat).double()

    def outputs(self, u: Tensor) -> Tensor:
        """y [m^3, tiles, Cout] of weights u [K, Cin, Cout], zero outside the output."""
        table = self.table.to(self.v)
        y = self.v.new_empty(table.shape[1], self.v.shape[1], u.shape[2])
        for part in self._parts(u.shape[2]):
            m = torch.bmm(self.v[:, part], u)  # [K, tiles, Cout]
            y[:, part] = (table.T @ m.flatten(1)).unflatten(1, (-1, u.shape[2]))
        return y.mul_(self.inside.T[:, self.shape, None])

    def adjoint(self, y: Tensor) -> Tensor:
        """[K, Cin, Cout]: the sum over voxels of phi y^T, y [m^3, tiles, Cout] being zero outside the output."""
        table = self.table.to(self.v)
        total = self.v.new_zeros(len(self.v), self.v.shape[2], y.shape[2])
        for part in self._parts(y.shape[2]):
            back = (table @ y[:, part].flatten(1)).unflatten(1, (-1, y.shape[2]))  # [K, tiles, Cout]
            total.baddbmm_(self.v[:, part].transpose(1, 2), back)
        return total

    def _by_shape(self, channels: slice | Tensor = slice(None)) -> Iterator[tuple[Tensor, Tensor]]:
        """(A of the voxels that count [T, m^3], v of the tiles that have them), for every shape there is."""
        for shape, inside in enumerate(self.inside):
            v = self.v if len(self.inside) == 1 else self.v[:, self.shape == shape]
            yield self.table * inside, v[:, :, channels]

    def _parts(self, channels: int) -> list[slice]:
        """The tiles, cut where the products of one part, `channels` at each position, would take more than PART."""
        count, size = self.v.shape[1], max(1, PART // (len(self.v) * channels))
        return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _windows(
    x: Tensor, starts: Sequence[int], ends: Sequence[int], sizes: Sequence[int], steps: Sequence[int]
) -> Tensor:
    """Windows of `sizes` every `steps` over x [N, C, D, H, W] from `starts` to `ends`, zeros beyond x:
    [N, C, gd, gh, gw, *sizes], a view."""
    pads = [side for s, e, n in zip(starts, ends, x.shape[2:], strict=True) for side in (e - n, -s)]
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True)):
        x = x if axis else F.pad(x, pads[::-1])
        x = x.unfold(axis + 2, size, step)
    return x


def _places(chosen: Tensor, items: int, grid: Sequence[int]) -> tuple[Tensor | slice, ...]:
    """The index of `chosen` tiles into windows: item, all channels, place on each axis."""
    n, d, h, w = torch.unravel_index(chosen, (items, *grid))
    return n, slice(None), d, h, w


def inside(tile: Tile, output_size: Sequence[int], chosen: Tensor) -> Tensor:
    """Which voxels of each of the `chosen` tiles lie in the output, bool [tiles, m^3]."""
    grid = tile.grid(output_size)
    d, h, w = torch.unravel_index(chosen % prod(grid), grid)
    found = []
    for size, m, origin, at in zip(output_size, tile.outputs, tile.origin, (d, h, w), strict=True):
        voxel = at[:, None] * m - origin + torch.arange(m)
        found.append((voxel >= 0) & (voxel < size))
    return (found[0][:, :, None, None] & found[1][:, None, :, None] & found[2][:, None, None, :]).flatten(1)
