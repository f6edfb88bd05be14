"""Builder of convolution: by products, a step for as many groups as fill a vector; channel by channel where groups have
few. Weights that a core's cache keeps meet activations where they lie; others meet patches."""

from collections.abc import Sequence

import numpy as np

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import neighbours
from lrw_kernels.cpu.operators.boxes import boxes_step
from lrw_kernels.cpu.operators.depthwise import depthwise_step, fits
from lrw_kernels.cpu.operators.grid import Grid, Part, Triple
from lrw_kernels.cpu.operators.patches import patches_step
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import PLAIN, Epilogue, Step, Steps, View


def convolution(
    x: View,
    y: View,
    weight: Array,
    machine: Machine,
    *,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    groups: int = 1,
    epilogue: Epilogue = PLAIN,
) -> Steps:
    """The steps of a convolution of x by weight [kd, kh, kw, Cin / groups, Cout] to y."""
    met = [tuple((k, k * by) for k in range(n)) for n, by in zip(weight.shape[:3], dilation, strict=True)]
    start = (-padding[0], -padding[1], -padding[2])
    whole = Part(y, weight, Grid(start, stride, (met[0], met[1], ())), epilogue)
    return Steps(in_phases(x, whole, [met[2]], groups, machine))


def in_phases(x: View, whole: Part, phases: Sequence[Taps], groups: int, machine: Machine) -> tuple[Step, ...]:
    """The steps of a convolution whose outputs along w come in runs of pixels with the taps `phases`, of
    neighbours together where that costs least."""
    count = neighbours.best(whole, phases, machine.lanes("float32"), most_kept(machine)).runs if groups == 1 else 0
    parts = neighbours.together(whole, phases, count) if count else neighbours.alone(whole, phases)
    steps: list[Step] = []
    for part in parts:
        if part.y.pixels > 0:
            steps += on_grid(x, part, groups, machine)
    return tuple(steps)


def on_grid(x: View, whole: Part, groups: int, machine: Machine) -> tuple[Step, ...]:
    """The steps of a convolution on any grid: one if its groups have few channels, else one for as many groups as fill
    a vector."""
    y, weight, grid, epilogue, _ = whole
    if groups > 1 and fits(weight, groups, machine):
        return (depthwise_step(x, y, weight, grid, epilogue, machine),)
    most = max(1, machine.lanes("float32") * groups // weight.shape[4])
    weight, groups = _joined(weight, groups, max(n for n in range(1, min(most, groups) + 1) if groups % n == 0))
    cin, size = weight.shape[3], weight.shape[4] // groups
    steps = list[Step]()
    for group in range(groups):
        here, some = slice(group * size, (group + 1) * size), epilogue.some(group * size, size)
        source, target = x.some(group * cin, cin), y.some(group * size, size)
        part = Part(target, weight[..., here], grid, some)
        make = boxes_step if weight.nbytes <= groups * most_kept(machine) else patches_step
        steps.append(make(source, part, machine))
    return tuple(steps)


def most_kept(machine: Machine) -> int:
    """Bytes of weights that a core's cache keeps, beside pixels that pass. None where products take a vector of each
    pixel's numbers at once (`by_element`): their order in patches suits that, in activations it need not."""
    return 0 if machine.by_element else machine.l2 // 2


def _joined(weight: Array, groups: int, count: int) -> tuple[Array, int]:
    """The weight of `count` groups at a time as one, zeros between them, and how many there are of these."""
    if count == 1:
        return weight, groups
    *taps, cin, cout = weight.shape
    wide = np.zeros((*taps, count, cin, groups // count, count, cout // groups), np.float32)
    for at, some in enumerate(np.moveaxis(weight.reshape(*taps, cin, groups // count, count, cout // groups), 5, 0)):
        wide[:, :, :, at, :, :, at] = some
    return wide.reshape(*taps, count * cin, cout), groups // count
