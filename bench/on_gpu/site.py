"""What kernels of a forward pass find in memory: as many tiles as the pass takes at a time, several sets of them."""

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from bench.on_gpu.clock import rotations
from bench.on_gpu.layers import PADDING
from bench.on_gpu.problem import Problem
from lrw_kernels.triton import choose, config, launch, parts
from lrw_kernels.triton.conv import Layer as Pass
from lrw_kernels.winograd.tile import Triple


@dataclass(frozen=True)
class Part:
    """The first tiles of a pass, of how many; `fused`: what products and inverse take as one kernel."""

    grid: Triple
    tiles: int
    of: int
    fused: config.Products | None

    @property
    def share(self) -> float:
        return self.tiles / self.of


@dataclass(frozen=True)
class Site:
    """xs [N, D, H, W, Cin]; of the part's tiles vs [K, tiles, Cin] and ms [K, tiles, Cout]; u [K, Cin, Cout]; y."""

    problem: Problem
    planned: Pass
    part: Part
    xs: list[Tensor]
    vs: list[Tensor]
    ms: list[Tensor]
    u: Tensor
    y: Tensor

    @property
    def cells(self) -> launch.Cells:
        """All outputs of the part."""
        return launch.Cells(self.part.grid, self.problem.tile.starts(), 0, self.part.tiles, 0)

    @property
    def starts(self) -> Triple:
        """Where tiles begin in the input."""
        return self.problem.tile.starts(PADDING)

    @property
    def flops(self) -> int:
        """Of the products, two for a multiply-add."""
        return 2 * self.u.numel() * self.part.tiles


def part(problem: Problem, share: float) -> Part:
    """The first that `conv.forward` takes."""
    layer, planned = problem.layer, problem.planned(share)
    grid = problem.tile.grid(layer.size)
    fused = choose.fused(planned, layer.cin, layer.cout, problem.device)
    each = len(planned.positions) * (layer.cin + (0 if fused else layer.cout)) * problem.dtype.itemsize
    count = layer.batch * prod(grid)
    x, y = (
        torch.empty(layer.batch, *layer.size, channels, dtype=problem.dtype, device="meta")
        for channels in (layer.cin, layer.cout)
    )
    return Part(grid, parts.of_tiles(count, each, parts.workspace(planned, x, y))[0][1], count, fused)


def site(problem: Problem, share: float) -> Site:
    """With V and M computed, as many sets as leave nothing in a cache."""
    cut, planned, layer = part(problem, share), problem.planned(share), problem.layer
    u = launch.operand(problem.weights(share), problem.precision)
    shape = (len(planned.positions), cut.tiles)
    count = rotations(prod(shape) * layer.cin * problem.dtype.itemsize, problem.cache)
    xs = [problem.inputs[i % problem.sets] for i in range(count)]
    vs, ms = ([_empty(problem, *shape, channels) for _ in xs] for channels in (layer.cin, layer.cout))
    made = Site(problem, planned, cut, xs, vs, ms, u, _empty(problem, layer.batch, *layer.size, layer.cout))
    for x, v, m in zip(xs, vs, ms, strict=True):
        launch.gather(x, "B", planned, planned.positions, cut.grid, made.starts)(v, 0, cut.tiles)
        torch.bmm(v, u, out=m)
    return made


def operand(sums: launch.WeightSums, values: Tensor) -> Tensor:
    """V or M as `conv.weight_grad` would gather it: zeros behind the tiles."""
    tiles = values.shape[1]
    found = sums.operand(tiles, values.shape[2], values).zero_()
    found[:, :tiles] = values
    return found


def _empty(problem: Problem, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=problem.dtype, device=problem.device)
