"""What is measured, most important first: when time is up, the rest is named."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch

from bench.gpu import measure, network
from bench.gpu.measure import Bench
from bench.gpu.problem import Problem
from bench.gpu.rows import Row
from bench.layers import SHARES, Layer
from lrw_kernels.triton.precision import Precision

Run = Callable[..., Iterator[Row]]
ENDS = (1.0, 0.25)  # shares of columns for tiles with four outputs an axis, and for a dry run


@dataclass(frozen=True)
class Job:
    """A layer, how its products are formed, by tiles of how many outputs: what kernels are compiled for."""

    layer: Layer
    precision: Precision
    outputs: int

    def problem(self, device: torch.device, cache: int) -> Problem:
        """Its tensors, on a device."""
        return Problem(self.layer, self.precision, self.outputs, device, cache)


@dataclass(frozen=True)
class Step:
    """A title, and what gives its rows: of the bench, and of a job's problem where there is a job."""

    title: str
    run: Run
    job: Job | None = None

    def rows(self, bench: Bench) -> Iterator[Row]:
        """One after the other."""
        return self.run(bench, *([self.job.problem(bench.clock.device, bench.clock.cache)] if self.job else []))


def steps(layers: Sequence[Layer], precisions: Sequence[Precision], dry: bool = False) -> list[Step]:
    """Ceilings, forward passes, the network, gradients, memory, kernels, graphs, large tiles, training, graphs of
    gradients."""
    shares, of_network = (ENDS, (0.5,)) if dry else (SHARES, (0.5, 1.0, 0.25))
    each, whole = partial(_each, layers, precisions), partial(_each, layers, [p for p in precisions if p == "ieee"])
    passes = {kind: partial(measure.passes, kind=kind) for kind in measure.GRAPHS}
    found = [Step("ceilings", measure.ceilings), *each("forward", partial(passes["forward"], shares=shares))]
    if "half" in precisions:
        found.append(Step("training step of R3D-18", partial(network.steps, shares=of_network)))
    for kind in ("input_grad", "weight_grad"):
        found += each(kind, partial(passes[kind], shares=shares))
    found += each("memory", partial(measure.memory, shares=shares))
    found += each("kernels", partial(measure.kernels, shares=shares))
    found += each("graph", partial(passes["forward"], shares=shares, in_graph=True))
    found += whole("forward", partial(passes["forward"], shares=ENDS), outputs=4)
    found += [*each("training", measure.training), *whole("training", measure.training, outputs=4)]
    for kind in ("input_grad", "weight_grad"):
        found += each(measure.GRAPHS[kind], partial(passes[kind], shares=shares, in_graph=True))
    return found


def _each(
    layers: Sequence[Layer], precisions: Sequence[Precision], what: str, run: Run, outputs: int = 2
) -> list[Step]:
    tiles = f", F({outputs},3)" if outputs != 2 else ""
    return [
        Step(f"{what} {precision} {layer.name}{tiles}", run, Job(layer, precision, outputs))
        for precision, layer in product(precisions, layers)
    ]
