"""Transposed convolution as ordinary ones: outputs o of one phase, o modulo the stride, gather x[i] through the same
taps, o + padding = i * stride + k * dilation, at stride 1. A phase that no tap reaches gets the bias alone."""

from itertools import product

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import neighbours
from lrw_kernels.cpu.operators.boxes import boxes_step
from lrw_kernels.cpu.operators.convolution import in_phases, most_kept
from lrw_kernels.cpu.operators.grid import EVERY, HERE, Grid, Part, Triple, every
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import PLAIN, Epilogue, Steps, View


def transposed(
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
    """torch's conv_transpose3d of x by weight [kd, kh, kw, Cin / groups, Cout]: all phases as channels of one pixel
    where that costs least, else a step a phase, or less."""
    sizes = zip(weight.shape[:3], stride, padding, dilation, strict=True)
    d, h, w = ([phase_taps(at, size, *axis) for at in range(axis[0])] for size, *axis in sizes)
    parts = []
    for first, second in product(range(stride[0]), range(stride[1])):
        rows = (first, second, 0), (stride[0], stride[1], 1)
        here = epilogue._replace(residual=epilogue.residual and every(epilogue.residual, *rows))
        parts.append(Part(every(y, *rows), weight, Grid(HERE, EVERY, (d[first], h[second], ())), here))
    lanes, kept = machine.lanes("float32"), most_kept(machine)
    if groups == 1:
        whole = Part(y, weight, Grid(HERE, EVERY, ((), (), ())), epilogue)
        one = neighbours.in_places(whole, (d, h, w), lanes, kept)
        apart = sum(neighbours.best(part, w, lanes, kept).cost for part in parts)
        if one and neighbours.cost(one, lanes) < apart:
            return Steps.of(boxes_step(x, one, machine))
    return Steps(tuple(step for part in parts for step in in_phases(x, part, w, groups, machine)))


def phase_taps(phase: int, size: int, stride: int, padding: int, dilation: int) -> Taps:
    """The taps (k, offset) of an axis by which outputs phase + stride * j gather x[j + offset], offsets rising."""
    met = [(k, phase + padding - k * dilation) for k in range(size)]
    return tuple((k, distance // stride) for k, distance in reversed(met) if distance % stride == 0)
