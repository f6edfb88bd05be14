"""From a problem to rows: gate, then times of whole passes, CUDA graphs, and the memory of a training step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from bench.gate import Red
from bench.gpu import direct, floors, gate
from bench.gpu.clock import Call, Clock, Times
from bench.gpu.direct import Fastest
from bench.gpu.problem import DTYPES, Problem, settings
from bench.gpu.rows import PRECISIONS, Row
from bench.layers import PADDING
from lrw.ops import domain_conv3d, winograd_conv3d
from lrw_kernels.triton import conv

GRAPHS = {"forward": "graph", "input_grad": "graph_input_grad", "weight_grad": "graph_weight_grad"}  # kinds of rows
MATMUL, COPY = 8192, 1 << 30  # side of square matrices, bytes copied; in a dry run next to nothing
DRY_MATMUL, DRY_COPY = 16, 1 << 10


@dataclass
class Bench:
    """The clock, the ceilings that were found, and the faster forms of cuDNN by layer, precision and pass."""

    clock: Clock
    ceilings: dict[str, float] = field(default_factory=dict)
    forms: dict[tuple[str, str, str], Fastest] = field(default_factory=dict)

    def fastest(self, problem: Problem, kind: str) -> Fastest:
        """cuDNN's, measured once."""
        key = problem.layer.name, problem.precision, kind
        if key not in self.forms:
            self.forms[key] = direct.fastest(problem, kind, self.clock.eager)
        return self.forms[key]


def ceilings(bench: Bench) -> Iterator[Row]:
    """Copy bandwidth, bytes read and written; rates of square products in the three precisions."""
    clock = bench.clock
    size, side = (DRY_COPY, DRY_MATMUL) if clock.dry else (COPY, MATMUL)
    buffers = [torch.randint(0, 256, (size,), dtype=torch.uint8, device=clock.device) for _ in range(3)]
    pairs = zip(buffers, [*buffers[1:], buffers[0]], strict=True)
    yield _ceiling(bench, "copy", "", 2 * size, clock.eager([partial(b.copy_, a) for a, b in pairs]))
    del buffers
    for precision in PRECISIONS:
        a, b = (torch.randn(side, side, device=clock.device, dtype=DTYPES[precision]) for _ in range(2))
        with settings(precision):
            times = clock.eager([partial(torch.matmul, a, b), partial(torch.matmul, b, a)])
        yield _ceiling(bench, "matmul", precision, 2 * side**3, times)


def _ceiling(bench: Bench, name: str, precision: str, work: int, times: Times | None) -> Row:
    rate = None if times is None else 1e3 * work / times.median
    if rate is not None:
        bench.ceilings[precision or name] = rate
    return Row("ceiling", name, precision, rate=rate, **spread(times))


def passes(bench: Bench, problem: Problem, kind: str, shares: Sequence[float], in_graph: bool = False) -> Iterator[Row]:
    """Rows of a whole pass at each share of columns, behind its gate; in a CUDA graph cuDNN has the form that was
    faster without one."""
    time, theirs = bench.clock.eager, bench.fastest(problem, kind)
    if in_graph:
        time = bench.clock.graph
        theirs = Fastest(theirs.form, direct.timed(problem, kind, theirs.form, time))
    for share in shares:
        u = problem.weights(share)
        floor = floors.least(floors.Pass(kind, problem.layer, problem.tile, share, problem.precision), bench.ceilings)
        with settings(problem.precision):
            error, note = _told(partial(gate.passed, problem, kind, u, share))
            times = None if note else time(_calls(problem, kind, u, share))
        row = problem.row(GRAPHS[kind] if in_graph else kind, columns=share, error=error, note=note, floor_ms=floor)
        yield _compared(row, times, theirs)


def kernels(bench: Bench, problem: Problem, shares: Sequence[float]) -> Iterator[Row]:
    """Where the time of passes goes: each of their kernels."""
    for share in shares:
        u = problem.weights(share)
        for kind in GRAPHS:
            with settings(problem.precision):
                spent = bench.clock.kernels(_calls(problem, kind, u, share))
            for name, ms in spent.items():
                yield Row(**problem.row("kernel", columns=share, form=f"{kind}: {name[:80]}", ms=ms))


def training(bench: Bench, problem: Problem) -> Iterator[Row]:
    """Forward and both gradients of a layer with spatial weights: U is formed of them, and their gradient of dU."""
    theirs, ours = bench.fastest(problem, "training"), _trained(problem)
    with settings(problem.precision, "training"):
        error, note = _told(lambda: gate.training(problem, ours[0]))
        times = None if note else bench.clock.eager(ours)
    floor = floors.training(problem.layer, problem.tile, problem.precision, bench.ceilings)
    yield _compared(problem.row("training", columns=1.0, error=error, note=note, floor_ms=floor), times, theirs)


def memory(bench: Bench, problem: Problem, shares: Sequence[float]) -> Iterator[Row]:
    """Peak of a training step of the layer alone, inputs and gradients included."""
    form = bench.fastest(problem, "forward").form
    problem.__dict__.pop("inputs", None)  # what was timed must not lie in memory with it
    layout, _, other = form.partition(" ")
    w = problem.weight.to(problem.dtype).contiguous(memory_format=direct.LAYOUTS[layout])  # no part of the step
    with settings("ieee" if other else problem.precision):
        theirs = bench.clock.peak(direct.step(problem, layout, direct.conv3d, w))
    for share in shares:
        function = partial(domain_conv3d, bias=None, layer=problem.geometry(share).arguments, backend="triton")
        with settings(problem.precision):
            ours = bench.clock.peak(direct.step(problem, "NDHWC", function, problem.weights(share)))
        yield Row(**problem.row("memory", columns=share, mib=ours, cudnn_mib=theirs, cudnn_form=form))


def spread(times: Times | None) -> dict[str, float]:
    """As a row has it."""
    return {} if times is None else {"ms": times.median, "low": times.low, "high": times.high}


def _told(judge: Callable[[], float]) -> tuple[float | None, str]:
    """(error, "") or (None, why there will be no numbers)."""
    try:
        return judge(), ""
    except Red as red:
        return None, str(red)


def _calls(problem: Problem, kind: str, u: Tensor, share: float) -> list[Call]:
    planned, pairs = problem.planned(share), list(zip(problem.inputs, problem.gradients, strict=True))
    us = [u, *(u.clone() for _ in pairs[1:])]
    if kind == "forward":
        return [partial(conv.forward, x, u, planned) for (x, _), u in zip(pairs, us, strict=True)]
    if kind == "input_grad":
        size = problem.layer.size
        return [partial(conv.input_grad, dy, u, planned, size) for (_, dy), u in zip(pairs, us, strict=True)]
    return [partial(conv.weight_grad, x, dy, planned) for x, dy in pairs]


def _trained(problem: Problem) -> list[Callable[[], tuple[Tensor, ...]]]:
    function = partial(winograd_conv3d, padding=PADDING, tile=problem.tile, backend="triton")
    w, pairs = problem.weight.to(problem.dtype), zip(problem.inputs, problem.gradients, strict=True)
    outer = 0, 4, 1, 2, 3  # [N, C, D, H, W], channels last in memory
    return [direct.trained(function, x.permute(outer), w.clone(), dy.permute(outer)) for x, dy in pairs]


def _compared(common: dict[str, object], ours: Times | None, theirs: Fastest) -> Row:
    cudnn = theirs.times.median if theirs.times else None
    speedup = cudnn / ours.median if ours and cudnn else None
    return Row(**common, **spread(ours), cudnn_ms=cudnn, cudnn_form=theirs.form, speedup=speedup)  # type: ignore[arg-type]
