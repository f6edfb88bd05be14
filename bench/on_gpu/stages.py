"""Where a forward pass's time goes: each of its kernels alone, as a share of what the device can do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor

from bench.on_gpu.clock import Call, rotations
from bench.on_gpu.layers import PADDING
from bench.on_gpu.measure import Bench, spread
from bench.on_gpu.problem import Problem, settings
from bench.on_gpu.rows import Row
from lrw_kernels.triton import config, conv
from lrw_kernels.winograd.tile import Triple


@dataclass(frozen=True)
class Part:
    """As many tiles as a pass takes at a time, of how many; `fused`: what products and inverse take as one kernel."""

    grid: Triple
    tiles: int
    of: int
    fused: config.Products | None

    @property
    def share(self) -> float:
        return self.tiles / self.of


def stages(bench: Bench, problem: Problem, shares: Sequence[float]) -> Iterator[Row]:
    """Rows of the stages, times as if all tiles were one part; products also by torch.bmm."""
    for share in shares:
        with settings(problem.precision):
            yield from _of_share(bench, problem, share)


def part(problem: Problem, share: float) -> Part:
    """The first that `conv.forward` takes."""
    layer, planned = problem.layer, problem.planned(share)
    grid = problem.tile.grid(layer.size)
    fused = config.fused(problem.precision, layer.cin, layer.cout, problem.tile.outputs)
    each = len(planned.positions) * (layer.cin + (0 if fused else layer.cout)) * problem.dtype.itemsize
    count = layer.batch * prod(grid)
    x, y = (
        torch.empty(layer.batch, *layer.size, channels, dtype=problem.dtype, device="meta")
        for channels in (layer.cin, layer.cout)
    )
    return Part(grid, next(conv._parts(count, each, conv._workspace(planned, x, y)))[1], count, fused)


def _of_share(bench: Bench, problem: Problem, share: float) -> Iterator[Row]:
    cut, planned, layer = part(problem, share), problem.planned(share), problem.layer
    kept, starts = len(planned.positions), problem.tile.starts()
    v_bytes, m_bytes = (kept * cut.tiles * channels * problem.dtype.itemsize for channels in (layer.cin, layer.cout))
    x_bytes, y_bytes = (_bytes(problem, channels) * cut.share for channels in (layer.cin, layer.cout))
    count = rotations(v_bytes, problem.cache)
    u = conv._by_output(problem.weights(share), problem.precision)
    xs = [problem.inputs[i % problem.sets] for i in range(count)]
    gathered = partial(conv._gather, name="B", starts=problem.tile.starts(PADDING), grid=cut.grid, layer=planned,
                       positions=planned.positions, first=0, tiles=cut.tiles)  # fmt: skip
    vs = [gathered(x) for x in xs]
    ms = [conv._multiplied(v, u, problem.precision) for v in vs]
    y = torch.empty(layer.batch, *layer.size, layer.cout, dtype=problem.dtype, device=problem.device)
    cells = conv._Cells(cut.grid, starts, 0, cut.tiles, 0)
    flops = 2 * kept * cut.tiles * layer.cin * layer.cout
    runs: dict[str, tuple[list[Call], float, str]] = {
        "gather": ([partial(gathered, x) for x in xs], x_bytes + v_bytes, "copy"),
        "products": ([partial(_products, v, u, problem) for v in vs], flops, problem.precision),
        "bmm": ([partial(torch.bmm, v, u) for v in vs], flops, problem.precision),
        "scatter": ([partial(conv._scatter, m, y, "A", cut.grid, planned, planned.positions, cells, conv.NOTHING)
                     for m in ms], m_bytes + y_bytes, "copy"),
    }  # fmt: skip
    if cut.fused:
        calls: list[Call] = [
            partial(conv._products_scatter, v, u, y, planned, planned.positions, cut.grid, 0, conv.NOTHING, cut.fused)
            for v in vs
        ]
        runs["fused"] = calls, flops, problem.precision
    for kind, (repeated, work, limit) in runs.items():
        yield _row(bench, problem, share, kind, cut, repeated, work, limit)


def _row(
    bench: Bench, problem: Problem, share: float, kind: str, cut: Part, calls: Sequence[Call], work: float, limit: str
) -> Row:
    times = bench.clock.graph(calls)  # what a kernel takes, not what starting it does
    rate = None if times is None else 1e3 * work / times.median
    of = rate / bench.ceilings[limit] if rate is not None and limit in bench.ceilings else None
    shown = spread(None if times is None else times.scaled(1 / cut.share))
    return Row(**problem.row(kind, columns=share, rate=rate, of_ceiling=of), **shown)


def _products(v: Tensor, u: Tensor, problem: Problem) -> Tensor:
    """By our kernel, also where a pass leaves them to cuBLAS."""
    m = torch.empty(v.shape[0], v.shape[1], u.shape[2], dtype=v.dtype, device=v.device)
    conv._products(v, u, m[None], problem.precision, v.shape[2])
    return m


def _bytes(problem: Problem, channels: int) -> int:
    """Of activations."""
    return problem.layer.batch * prod(problem.layer.size) * channels * problem.dtype.itemsize
