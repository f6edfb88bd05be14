"""Where the outputs of a convolution meet its input, and what is done to them at last."""

from math import ceil
from typing import NamedTuple

import numpy as np

from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import Reference, View, axes, strides

Triple = tuple[int, int, int]


class Grid(NamedTuple):
    """Output pixel o of an axis meets x at start + step * o + the offsets of the taps."""

    start: Triple
    step: Triple
    taps: tuple[Taps, Taps, Taps]


class Epilogue(NamedTuple):
    """Bias [Cout], a residual like the output, ReLU."""

    bias: Array | None = None
    residual: View | None = None
    relu: bool = False


NOTHING = Epilogue()


def grid_fields(x: View, y: View, grid: Grid) -> dict[str, int]:
    """The grid and the sizes of both activations as fields of a record."""
    outputs = {**axes("step", grid.step), **axes("out", y.size[1:4])}
    return {**axes("size", x.size[1:4]), **axes("start", grid.start), **outputs}


def finish_fields(epilogue: Epilogue, channels: int, lanes: int) -> dict[str, Reference]:
    """The epilogue as fields of a record."""
    residual = strides("residual", epilogue.residual) if epilogue.residual else {}
    return {"bias": _padded(epilogue.bias, channels, lanes), "relu": epilogue.relu, **residual}


def _padded(bias: Array | None, channels: int, lanes: int) -> Array:
    """A bias [channels] in whole vectors of `lanes`, zeros where there is none."""
    result = np.zeros(ceil(channels / lanes) * lanes, np.float32)
    if bias is not None:
        result[:channels] = bias
    return result
