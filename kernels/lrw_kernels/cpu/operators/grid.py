"""Where the outputs of a convolution meet its input."""

from math import ceil
from typing import NamedTuple

from lrw_kernels.cpu.operators.taps import Taps
from lrw_kernels.cpu.step import Epilogue, Reference, View, axes, strides

Triple = tuple[int, int, int]


class Grid(NamedTuple):
    """Output pixel o of an axis meets x at start + step * o + the offsets of the taps."""

    start: Triple
    step: Triple
    taps: tuple[Taps, Taps, Taps]


def grid_fields(x: View, y: View, grid: Grid) -> dict[str, int]:
    """The grid and the sizes of both activations as fields of a record."""
    outputs = {**axes("step", grid.step), **axes("out", y.size[1:4])}
    return {**axes("size", x.size[1:4]), **axes("start", grid.start), **outputs}


def finish_fields(epilogue: Epilogue, channels: int, lanes: int) -> dict[str, Reference]:
    """The epilogue as fields of a record."""
    residual = strides("residual", epilogue.residual) if epilogue.residual else {}
    return {**epilogue.fields(ceil(channels / lanes) * lanes), **residual}
