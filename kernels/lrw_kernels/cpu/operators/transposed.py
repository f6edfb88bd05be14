"""Transposed convolution as ordinary ones: outputs o of one phase, o modulo the stride, gather x[i] through the same
taps, o + padding = i * stride + k * dilation, at stride 1. A phase that no tap reaches gets the bias alone."""

from itertools import product

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators.convolution import on_grid
from lrw_kernels.cpu.operators.grid import Grid, Triple
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import PLAIN, Epilogue, Size, Step, Steps, View

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
    """torch's conv_transpose3d of x by weight [kd, kh, kw, Cin / groups, Cout]; a step a phase and group."""
    steps: list[Step] = []
    for phase in product(*map(range, stride)):
        axes = [phase_taps(at, *of) for at, *of in zip(phase, weight.shape[:3], stride, padding, dilation, strict=True)]
        target = every(y, phase, stride)
        if target.pixels > 0:
            residual = epilogue.residual and every(epilogue.residual, phase, stride)
            grid = Grid(HERE, EVERY, (axes[0], axes[1], axes[2]))
            here = epilogue._replace(residual=residual)
            steps += on_grid(x, target, weight, grid, groups, here, machine)
    return Steps(tuple(steps))


def phase_taps(phase: int, size: int, stride: int, padding: int, dilation: int) -> Taps:
    """The taps (k, offset) of an axis by which outputs phase + stride * j gather x[j + offset], offsets rising."""
    met = [(k, phase + padding - k * dilation) for k in range(size)]
    return tuple((k, distance // stride) for k, distance in reversed(met) if distance % stride == 0)


def every(of: View, first: tuple[int, ...], by: Triple) -> View:
    """The sub-grid from `first`, every `by`-th element along d, h and w."""
    n, *steps = of.strides
    sizes = [max(0, -(-(size - at) // step)) for size, at, step in zip(of.size[1:4], first, by, strict=True)]
    address = of.address + sum(at * stride for at, stride in zip(first, steps, strict=True))
    strides = [stride * step for stride, step in zip(steps, by, strict=True)]
    size: Size = (of.size[0], sizes[0], sizes[1], sizes[2], of.channels)
    return View(address, (n, strides[0], strides[1], strides[2]), size)
