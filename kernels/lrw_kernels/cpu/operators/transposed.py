"""Transposed convolution as ordinary ones: outputs o of one phase, o modulo the stride, gather x[i] through the same
taps, o + padding = i * stride + k * dilation, at stride 1. A phase that no tap reaches gets the bias alone."""

from itertools import product

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators.convolution import in_phases
from lrw_kernels.cpu.operators.grid import Grid, Triple, every
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import PLAIN, Epilogue, Step, Steps, View

HERE: Triple = (0, 0, 0)
EVERY: Triple = (1, 1, 1)


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
    """torch's conv_transpose3d of x by weight [kd, kh, kw, Cin / groups, Cout]; a step a phase, or less."""
    steps: list[Step] = []
    along_w = [phase_taps(at, weight.shape[2], stride[2], padding[2], dilation[2]) for at in range(stride[2])]
    for phase in product(*map(range, stride[:2])):
        of = zip(phase, weight.shape[:2], stride[:2], padding[:2], dilation[:2], strict=True)
        d, h = (phase_taps(*axis) for axis in of)
        rows = (phase[0], phase[1], 0), (stride[0], stride[1], 1)
        here = epilogue._replace(residual=epilogue.residual and every(epilogue.residual, *rows))
        grid = Grid(HERE, EVERY, (d, h, ()))
        steps += in_phases(x, every(y, *rows), weight, grid, along_w, groups, here, machine)
    return Steps(tuple(steps))


def phase_taps(phase: int, size: int, stride: int, padding: int, dilation: int) -> Taps:
    """The taps (k, offset) of an axis by which outputs phase + stride * j gather x[j + offset], offsets rising."""
    met = [(k, phase + padding - k * dilation) for k in range(size)]
    return tuple((k, distance // stride) for k, distance in reversed(met) if distance % stride == 0)
