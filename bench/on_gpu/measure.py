"""From a problem to rows: gate, then times of whole passes, CUDA graphs, and the memory of a training step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from bench.on_gpu import direct, floors, gate, layers
from bench.on_gpu.clock import Call, Clock, Times
from bench.on_gpu.direct import Fastest
from bench.on_gpu.problem import Problem, settings
from bench.on_gpu.rows import Row
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
    size = DRY_COPY if clock.dry else COPY
    buffers = [torch.randint(0, 256, (size,), dtype=torch.uint8, device=clock.device) for _ in range(3)]
    pairs = zip(buffers, [*buffers[1:], buffers[0]], strict=True)
    times = clock.eager([partial(b.copy_, a) for a, b in pairs])
    yield _ceiling(bench, "copy", "", 2 * size, times)
    del buffers
    side = DRY_MATMUL if clock.dry else MATMUL
    for precision, dtype in (("half", torch.bfloat16), ("tf32", torch.float32), ("ieee", torch.float32)):
        a, b = (torch.randn(side, side, device=clock.device, dtype=dtype) for _ in range(2))
        with settings(precision):  # type: ignore[arg-type]
            times = clock.eager([partial(torch.matmul, a, b), partial(torch.matmul, b, a)])
        yield _ceiling(bench, "matmul", precision, 2 * side**3, times)


def _ceiling(bench: Bench, name: str, precision: str, work: int, times: Times | None) -> Row:
    rate = None if times is None else 1e3 * work / times.median
    if rate is not None:
        bench.ceilings[precision or name] = rate
    return Row("ceiling", name, precision, rate=rate, **spread(times))


def passes(bench: Bench, problem: Problem, kind: str, shares: Sequence[float]) -> Iterator[Row]:
    """Rows of a whole pass at each share of columns, behind its gate."""
    theirs: Fastest | None = None
    for share in shares:
        u = problem.weights(share)
        with settings(problem.precision):
            error, note = _judged(problem, kind, u, share)
            times = None if note else bench.clock.eager(_calls(problem, kind, u, share))
        if theirs is None:
            theirs = bench.fastest(problem, kind)
        floor = _floor(bench, problem, kind, share)
        row = problem.row(kind, columns=share, error=error, note=note, floor_ms=floor)
        yield _compared(row, times, theirs.times, theirs.form)


def _judged(problem: Problem, kind: str, u: Tensor, share: float) -> tuple[float | None, str]:
    if kind == "forward":
        return _told(lambda: gate.forward(problem, problem.inputs[0], u, share))
    if kind == "input_grad":
        return _told(lambda: gate.input_grad(problem, problem.gradients[0], u, share))
    return _told(lambda: gate.weight_grad(problem, share))


def _told(judge: Callable[[], float]) -> tuple[float | None, str]:
    """(error, "") or (None, why there will be no numbers)."""
    try:
        return judge(), ""
    except gate.Red as red:
        return None, str(red)


def _floor(bench: Bench, problem: Problem, kind: str, share: float) -> float | None:
    one = floors.Pass(kind, problem.layer, problem.tile, share, problem.precision)
    return floors.least(one, bench.ceilings)


def _calls(problem: Problem, kind: str, u: Tensor, share: float) -> list[Call]:
    planned, size = problem.planned(share), problem.layer.size
    us = [u, *(u.clone() for _ in problem.inputs[1:])]
    if kind == "forward":
        return [partial(conv.forward, x, u, planned) for x, u in zip(problem.inputs, us, strict=True)]
    if kind == "input_grad":
        return [partial(conv.input_grad, dy, u, planned, size) for dy, u in zip(problem.gradients, us, strict=True)]
    return [partial(conv.weight_grad, x, dy, planned) for x, dy in zip(problem.inputs, problem.gradients, strict=True)]


def graphs(bench: Bench, problem: Problem, shares: Sequence[float], kind: str = "forward") -> Iterator[Row]:
    """A pass in a CUDA graph, ours and that of cuDNN's form that was faster without one."""
    form = bench.fastest(problem, kind).form
    theirs = direct.again(problem, kind, form, bench.clock.graph)
    for share in shares:
        u = problem.weights(share)
        with settings(problem.precision):
            _, note = _judged(problem, kind, u, share)
            times = None if note else bench.clock.graph(_calls(problem, kind, u, share))
        row = problem.row(GRAPHS[kind], columns=share, note=note, floor_ms=_floor(bench, problem, kind, share))
        yield _compared(row, times, theirs, form)


def training(bench: Bench, problem: Problem) -> Iterator[Row]:
    """Forward and both gradients of a layer with spatial weights: U is formed of them, and their gradient of dU."""
    theirs, ours = bench.fastest(problem, "training"), _trained(problem)
    with settings(problem.precision, "training"):
        error, note = _told(lambda: gate.training(problem, ours[0]))
        times = None if note else bench.clock.eager(ours)
    floor = floors.training(problem.layer, problem.tile, problem.precision, bench.ceilings)
    row = problem.row("training", columns=1.0, error=error, note=note, floor_ms=floor)
    yield _compared(row, times, theirs.times, theirs.form)


def _trained(problem: Problem) -> list[Callable[[], tuple[Tensor, ...]]]:
    function = partial(winograd_conv3d, padding=layers.PADDING, tile=problem.tile, backend="triton")
    w, pairs = problem.weight.to(problem.dtype), zip(problem.inputs, problem.gradients, strict=True)
    outer = 0, 4, 1, 2, 3  # [N, C, D, H, W], channels last in memory
    return [direct.trained(function, x.permute(outer), w.clone(), dy.permute(outer)) for x, dy in pairs]


def memory(bench: Bench, problem: Problem, shares: Sequence[float]) -> Iterator[Row]:
    """Peak of a training step of the layer alone, inputs and gradients included."""
    form = bench.fastest(problem, "forward").form
    problem.__dict__.pop("inputs", None)  # what was timed must not lie in memory with it
    assert problem.weight.device.type == problem.device.type  # is there, and no part of the step
    with settings(direct.precisions(form, problem.precision)):
        theirs = bench.clock.peak(direct.step(problem, form))
    for share in shares:
        u = problem.weights(share)
        with settings(problem.precision):
            ours = bench.clock.peak(_step(problem, u, share))
        yield Row(**problem.row("memory", columns=share, mib=ours, cudnn_mib=theirs, cudnn_form=form))


def _step(problem: Problem, weights: Tensor, share: float) -> Callable[[], Call]:
    """On tensors made when it is asked for, through the operators of lrw."""
    layer = problem.geometry(share).arguments

    def make() -> Call:
        d, h, w = problem.layer.size
        shape = (problem.layer.batch, problem.layer.cin, d, h, w)
        last = torch.channels_last_3d
        x = torch.randn(shape, device=problem.device, dtype=problem.dtype).contiguous(memory_format=last)
        dy = torch.randn((shape[0], problem.layer.cout, d, h, w), device=problem.device, dtype=problem.dtype)
        dy = dy.contiguous(memory_format=last)
        function = partial(domain_conv3d, bias=None, layer=layer, backend="triton")
        return direct.trained(function, x, weights.clone(), dy)

    return make


def _compared(common: dict[str, object], ours: Times | None, theirs: Times | None, form: str) -> Row:
    speedup = theirs.median / ours.median if ours and theirs else None
    cudnn = theirs.median if theirs else None
    return Row(**common, **spread(ours), cudnn_ms=cudnn, cudnn_form=form, speedup=speedup)  # type: ignore[arg-type]


def spread(times: Times | None) -> dict[str, float]:
    """As a row has it."""
    return {} if times is None else {"ms": times.median, "low": times.low, "high": times.high}
