"""Which blocks, warps and stages suit each kernel: every candidate of a short list, judged, then timed.

A layer stands for all of its channels and precision. What a candidate computes is held against what the configuration
in use computes on the same numbers; that one is behind the gates of the passes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources, PTXASError

from bench.on_gpu.gate import SINGLE, TF32
from bench.on_gpu.measure import Bench, spread
from bench.on_gpu.problem import Problem, settings
from bench.on_gpu.rows import Row
from bench.on_gpu.site import Site, operand, site
from lrw_kernels.triton import choose, config, conv, launch, tables, tuned
from lrw_kernels.triton.config import Products, Transform
from lrw_kernels.triton.layer import NOTHING
from lrw_kernels.triton.precision import Precision

Fill = Callable[[], Tensor]
"""A call that returns what it has filled."""
# Too much shared memory, too many registers, not compiled (a pass of the compiler's that failed is a RuntimeError).
REFUSED = (OutOfResources, PTXASError, CompilationError, RuntimeError)
OURS = (torch.OutOfMemoryError, torch.AcceleratorError)  # RuntimeErrors that say nothing of the configuration
WORKSPACES = (16, 32, 64, 128, 512)  # MiB, at most; the second-level cache of a large GPU has 40 to 50
SHARE = 0.5  # of the columns: what suits it is taken for any
TENSOR_CORES = (Products(128, 128, 64, 8, 3), Products(128, 128, 64, 4, 4), Products(128, 256, 64, 8, 3),
                Products(128, 256, 64, 8, 4), Products(256, 128, 64, 8, 3), Products(128, 64, 64, 4, 4),
                Products(64, 128, 64, 4, 4), Products(64, 64, 64, 4, 4))  # fmt: skip
FUSED = (Products(64, 64, 0, 8, 2), Products(64, 64, 0, 8, 3), Products(64, 64, 0, 8, 4), Products(128, 32, 0, 8, 3),
         Products(32, 64, 0, 4, 3))  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """A kernel, a configuration by its text, calls that take turns, how many numbers a sum of theirs has."""

    kernel: str
    config: str
    calls: Sequence[Fill]
    terms: int


def sweep(bench: Bench, problem: Problem) -> Iterator[Row]:
    """A row for each candidate, the first of a kernel being the configuration in use; and for forward passes by it, in
    CUDA graphs, with parts of other sizes."""
    with settings(problem.precision):
        expected: dict[str, Tensor] = {}
        for trial in trials(site(problem, SHARE)):
            yield _row(bench, problem, trial, expected)
        u, planned = problem.weights(SHARE), problem.planned(SHARE)
        for mib in WORKSPACES:
            layer = replace(planned, workspace=mib << 20)
            calls = [partial(conv.forward, x, u, layer) for x in problem.inputs]
            common = problem.row("workspace", columns=SHARE, form=f"{mib} MiB")
            yield Row(**common, **spread(bench.clock.graph(calls)))


def trials(made: Site) -> Iterator[Trial]:
    """All candidates of a site: the configuration in use first, the others once each."""
    yield from _transforms(made)
    yield from _products(made)
    yield from _weight_sums(made)
    yield from _fused(made)


def blocks(used: Transform, channels: int) -> list[Transform]:
    """More warps, for more tiles or less of each; half the tiles; fewer channels, or more. Twice the tiles for as many
    warps would have no registers left."""
    narrow = replace(used, channels=used.channels // 2, tiles=used.tiles * 2)
    wide = replace(used, warps=2 * used.warps, tiles=2 * used.tiles)
    found = [used, wide, replace(wide, tiles=used.tiles)]
    found += [replace(used, tiles=used.tiles // 2)] if used.tiles > 1 else []
    found += [narrow] if used.channels > 16 else []
    found += [replace(used, channels=128, tiles=max(1, used.tiles * used.channels // 128))] if channels >= 128 else []
    return list(dict.fromkeys(found))


def shapes(used: Products, rows: int, columns: int) -> list[Products]:
    """Those of the list that are no larger than the products, by as many steps."""
    fitting = [replace(one, steps=used.steps) for one in TENSOR_CORES if one.rows <= rows and one.columns <= columns]
    return list(dict.fromkeys([used, *fitting]))


def _transforms(made: Site) -> Iterator[Trial]:
    problem, planned, cut = made.problem, made.planned, made.part
    layer, device, itemsize = problem.layer, problem.device, problem.dtype.itemsize
    positions, terms = planned.positions, problem.tile.positions
    inward = tables.gather(planned.tile, "B", positions, device)
    for chosen in blocks(choose.gather(planned, inward, layer.cin, itemsize, device), layer.cin):
        starts = [launch.gather(x, "B", planned, positions, cut.grid, made.starts, chosen) for x in made.xs]
        calls = [partial(_filled, v, start, v, 0, cut.tiles) for start, v in zip(starts, made.vs, strict=True)]
        yield Trial("gather", tuned.text(chosen), calls, terms)
    outward = tables.scatter(planned.tile, "A", positions, device)
    for chosen in blocks(choose.scatter(planned, outward, layer.cout, itemsize, device)[1], layer.cout):
        scatter = launch.scatter(made.y, "A", planned, positions, cut.grid, NOTHING, chosen)
        calls = [partial(_filled, made.y, scatter, m, made.cells) for m in made.ms]
        yield Trial("scatter", tuned.text(chosen), calls, terms)


def _products(made: Site) -> Iterator[Trial]:
    problem, layer, tiles = made.problem, made.problem.layer, made.part.tiles
    used = choose.products(made.planned, tiles, layer.cin, layer.cout, problem.device)
    ours: list[Products | None] = []
    if problem.precision != "ieee":  # there cuBLAS has no rival
        usual = used or config.products(
            problem.precision, tiles, layer.cout, layer.cin, choose.capability(problem.device)
        )
        ours = [*shapes(usual, tiles, layer.cout)]
    for chosen in [None, *ours] if used is None else [*ours, None]:
        calls = [partial(_filled, m, launch.multiply, v, made.u, m, problem.precision, chosen)
                 for v, m in zip(made.vs, made.ms, strict=True)]  # fmt: skip
        yield Trial("products", tuned.CUBLAS if chosen is None else tuned.text(chosen), calls, layer.cin)


def _weight_sums(made: Site) -> Iterator[Trial]:
    problem, layer, tiles = made.problem, made.problem.layer, made.part.tiles
    used = choose.weight_sums(made.planned, layer.cin, layer.cout, tiles, problem.device)
    if used is None:
        return
    shape = len(made.planned.positions), layer.cin, layer.cout
    for chosen in shapes(used, min(layer.cin, config.WIDEST), min(layer.cout, config.WIDEST)):
        begin = partial(launch.WeightSums, shape, tiles, problem.precision, chosen, problem.device)
        operands = [(operand(begin(), v), operand(begin(), m)) for v, m in zip(made.vs[:2], made.ms[:2], strict=True)]
        calls = [partial(_summed, begin, v, dm) for v, dm in operands]
        yield Trial("weight_sums", tuned.text(chosen), calls, tiles)


def _fused(made: Site) -> Iterator[Trial]:
    problem, planned, layer = made.problem, made.planned, made.problem.layer
    usual = config.fused(problem.precision, layer.cin, layer.cout, problem.tile.outputs)
    if usual is None:
        return
    used = choose.fused(planned, layer.cin, layer.cout, problem.device) or usual
    for chosen in dict.fromkeys([used, *(replace(one, steps=used.steps) for one in FUSED)]):
        start = launch.products_scatter(made.u, made.y, planned, planned.positions, made.part.grid, NOTHING, chosen)
        calls = [partial(_filled, made.y, start, v, 0) for v in made.vs]
        yield Trial("fused", tuned.text(chosen), calls, layer.cin)


def _filled(result: Tensor, start: Callable[..., None], *arguments: Any) -> Tensor:
    start(*arguments)
    return result


def _summed(begin: Callable[[], launch.WeightSums], v: Tensor, dm: Tensor) -> Tensor:
    sums = begin()
    sums.add(v, dm)
    return sums.total()


def _row(bench: Bench, problem: Problem, trial: Trial, expected: dict[str, Tensor]) -> Row:
    """Times of a candidate that computes what the first one of its kernel does; else why there are none."""
    what = f"{trial.kernel} {trial.config}"
    try:
        error, note = _judged(trial, expected, problem.precision)
        times = None if note else bench.clock.graph(trial.calls)
    except OURS:
        raise
    except REFUSED as refused:
        if not bench.clock.dry:
            torch.cuda.synchronize(bench.clock.device)  # raises if it was more than that
        text = " ".join(str(refused).split())[:200]
        return Row(**problem.row("refused", columns=SHARE, form=what, note=f"{type(refused).__name__}: {text}"))
    return Row(**problem.row("sweep", columns=SHARE, form=what, error=error, note=note), **spread(times))


def _judged(trial: Trial, expected: dict[str, Tensor], precision: Precision) -> tuple[float | None, str]:
    """(distance, "") from the first one of the kernel, as norms, or (None, why there will be no numbers).

    Sums may have another order, and cuBLAS may round to TF32 in another way than tensor cores do by themselves.
    """
    trial.calls[0]().fill_(torch.nan)  # also compiles
    result = trial.calls[0]()
    if trial.kernel not in expected:
        expected[trial.kernel] = result.clone()
    wanted = expected[trial.kernel]
    written = ~torch.isnan(wanted)
    if not torch.equal(written, ~torch.isnan(result)) or not bool(written.any()):
        return None, f"sweep: {trial.kernel} {trial.config} leaves values nobody wrote"
    a, b = result[written].double(), wanted[written].double()
    far = float((a - b).norm() / b.norm())
    limit = (TF32 if precision == "tf32" else torch.finfo(result.dtype).eps) + SINGLE * trial.terms**0.5
    return (
        (far, "") if far <= limit else (None, f"sweep: {trial.kernel} {trial.config} is off by {far:.2g} of its norm")
    )
