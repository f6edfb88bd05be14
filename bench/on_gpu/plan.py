"""What is measured, most important first: when time is up, the rest is named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from bench.on_gpu import measure, network, stages, sweep
from bench.on_gpu.layers import SHARES, Layer
from bench.on_gpu.measure import Bench
from bench.on_gpu.problem import Problem
from bench.on_gpu.rows import Row
from lrw_kernels.triton.precision import Precision

Run = Callable[[Bench], Iterator[Row]]
ENDS = (1.0, 0.25)  # shares of columns for tiles with four outputs an axis, and for a dry run


@dataclass(frozen=True)
class Step:
    """A title, the job whose kernels it needs (see `compiled`), and what gives its rows."""

    title: str
    job: str
    run: Run


def job(precision: Precision, layer: Layer, outputs: int, what: str = "passes") -> str:
    """The name of what `compiled` compiles: the passes of a layer, or all that a sweep tries."""
    return f"{what}:{precision}:{layer.name}:{outputs}"


def steps(layers: Sequence[Layer], precisions: Sequence[Precision], dry: bool = False) -> list[Step]:
    """Ceilings, forward passes, the network, gradients, memory, stages, graphs, large tiles, training, graphs of
    gradients."""
    shares, of_network = (ENDS, (0.5,)) if dry else (SHARES, (0.5, 1.0, 0.25))
    found = [Step("ceilings", "", measure.ceilings)]
    found += _each(layers, precisions, "forward", partial(measure.passes, kind="forward", shares=shares))
    if "half" in precisions:
        found.append(Step("training step of R3D-18", "", partial(network.steps, shares=of_network)))
        graphs = partial(network.graphs, shares=of_network[:2])
        found.append(Step("training step of R3D-18 in CUDA graphs", "", graphs))
    for kind in ("input_grad", "weight_grad"):
        found += _each(layers, precisions, kind, partial(measure.passes, kind=kind, shares=shares))
    found += _each(layers, precisions, "memory", partial(measure.memory, shares=shares))
    found += _each(layers, precisions, "stages", partial(stages.stages, shares=shares))
    found += _each(layers, precisions, "graph", partial(measure.graphs, shares=shares))
    large = partial(measure.passes, kind="forward", shares=ENDS)
    whole = [p for p in precisions if p == "ieee"]
    found += _each(layers, whole, "forward", large, outputs=4)
    found += _each(layers, precisions, "training", measure.training)
    found += _each(layers, whole, "training", measure.training, outputs=4)
    for kind in ("input_grad", "weight_grad"):
        found += _each(layers, precisions, measure.GRAPHS[kind], partial(measure.graphs, kind=kind, shares=shares))
    return found


def sweeps(layers: Sequence[Layer], precisions: Sequence[Precision]) -> list[Step]:
    """Every configuration of every kernel, layer by layer."""
    return [
        Step(f"sweep {precision} {layer.name}", job(precision, layer, 2, "sweep"),
             partial(_of, run=sweep.sweep, layer=layer, precision=precision, outputs=2))
        for precision in precisions for layer in layers
    ]  # fmt: skip


def jobs(plan: Sequence[Step]) -> list[str]:
    """What to compile, in the order of need."""
    return [name for name in dict.fromkeys(step.job for step in plan) if name]


def _each(
    layers: Sequence[Layer], precisions: Sequence[Precision], what: str, run: Callable[..., Iterator[Row]],
    outputs: int = 2,
) -> list[Step]:  # fmt: skip
    tiles = f", F({outputs},3)" if outputs != 2 else ""
    return [
        Step(f"{what} {precision} {layer.name}{tiles}", job(precision, layer, outputs),
             partial(_of, run=run, layer=layer, precision=precision, outputs=outputs))
        for precision in precisions for layer in layers
    ]  # fmt: skip


def _of(
    bench: Bench, run: Callable[..., Iterator[Row]], layer: Layer, precision: Precision, outputs: int
) -> Iterator[Row]:
    problem = Problem(layer, precision, outputs, bench.clock.device, bench.clock.cache)
    yield from run(bench=bench, problem=problem)
