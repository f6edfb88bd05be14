"""Where the time of passes goes: each of their kernels alone, as a share of what the device can do."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from bench.on_gpu.clock import Call
from bench.on_gpu.measure import Bench, spread
from bench.on_gpu.problem import Problem, settings
from bench.on_gpu.rows import Row
from bench.on_gpu.site import Site, operand, site
from lrw_kernels.triton import choose, config, launch
from lrw_kernels.triton.layer import NOTHING

Run = tuple[list[Call], float, str]
"""Calls that take turns, the work of one (bytes or operations), and the ceiling it is held against."""


def stages(bench: Bench, problem: Problem, shares: Sequence[float]) -> Iterator[Row]:
    """Rows of the stages, times as if all tiles were one part; products also by torch.bmm."""
    for share in shares:
        with settings(problem.precision):
            made = site(problem, share)
            for kind, run in _runs(made).items():
                yield _row(bench, made, share, kind, run)


def _runs(made: Site) -> dict[str, Run]:
    problem, planned, cut, u = made.problem, made.planned, made.part, made.u
    positions, precision, pairs = planned.positions, problem.precision, list(zip(made.vs, made.ms, strict=True))
    v_bytes, m_bytes = made.vs[0].nbytes, made.ms[0].nbytes
    x_bytes, y_bytes = made.xs[0].nbytes * cut.share, made.y.nbytes * cut.share
    gathers = [launch.gather(x, "B", planned, positions, cut.grid, made.starts) for x in made.xs]
    scatter = launch.scatter(made.y, "A", planned, positions, cut.grid, NOTHING)
    shape = cut.tiles, problem.layer.cin, problem.layer.cout
    usual = config.products(precision, shape[0], *shape[:0:-1], choose.capability(problem.device))
    chosen = choose.products(planned, *shape, problem.device) or usual
    runs: dict[str, Run] = {
        "gather": ([partial(gather, v, 0, cut.tiles) for gather, v in zip(gathers, made.vs, strict=True)],
                   x_bytes + v_bytes, "copy"),
        "products": ([partial(launch.multiply, v, u, m, precision, chosen) for v, m in pairs], made.flops, precision),
        "bmm": ([partial(torch.bmm, v, u, out=m) for v, m in pairs], made.flops, precision),
        "scatter": ([partial(scatter, m, made.cells) for m in made.ms], m_bytes + y_bytes, "copy"),
    }  # fmt: skip
    if cut.fused:
        fused = launch.products_scatter(u, made.y, planned, positions, cut.grid, NOTHING, cut.fused)
        runs["fused"] = [partial(fused, v, 0) for v in made.vs], made.flops, precision
    return runs | _of_weight_grad(made, m_bytes + y_bytes)


def _of_weight_grad(made: Site, moved: float) -> dict[str, Run]:
    """The way of dY into the domain, and the sums over tiles; x goes there as in a forward pass. The gradient of the
    input has the stages of a forward pass."""
    problem, planned, cut = made.problem, made.planned, made.part
    channels = problem.layer.cin, problem.layer.cout
    chosen = choose.weight_sums(planned, *channels, cut.tiles, problem.device)
    shape = len(planned.positions), *channels
    begin = partial(launch.WeightSums, shape, cut.tiles, problem.precision, chosen, problem.device)
    sums = begin()
    pairs = [(operand(sums, v), operand(sums, m)) for v, m in zip(made.vs, made.ms, strict=True)]
    starts, gathers = problem.tile.starts(), []
    for i, (_, dm) in enumerate(pairs):
        dy = problem.gradients[i % problem.sets]
        gather = launch.gather(dy, "A", planned, planned.positions, cut.grid, starts, by_tile=sums.by_tile)
        gathers.append(partial(gather, dm, 0, cut.tiles))
    return {
        "gather_dy": (gathers, moved, "copy"),
        "weight_sums": ([partial(_summed, begin, v, dm) for v, dm in pairs], made.flops, problem.precision),
    }


def _summed(begin: Callable[[], launch.WeightSums], v: Tensor, dm: Tensor) -> None:
    """The first part of a pass: nothing is there yet to add to."""
    begin().add(v, dm)


def _row(bench: Bench, made: Site, share: float, kind: str, run: Run) -> Row:
    calls, work, limit = run
    times = bench.clock.graph(calls)  # what a kernel takes, not what starting it does
    rate = None if times is None else 1e3 * work / times.median
    of = rate / bench.ceilings[limit] if rate is not None and limit in bench.ceilings else None
    shown = spread(None if times is None else times.scaled(1 / made.part.share))
    return Row(**made.problem.row(kind, columns=share, rate=rate, of_ceiling=of), **shown)
