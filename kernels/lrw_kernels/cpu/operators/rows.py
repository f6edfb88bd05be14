"""Builders of what is done to every pixel alike."""

from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import RANGE, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import Step, Steps, View, axes, job, strides

PIECE = 8192  # numbers of a work item where activations are one piece of memory


def copy(x: View, y: View, machine: Machine) -> Steps:
    """The same numbers, elsewhere: also how inputs come side by side in a wider buffer."""
    return Steps.of(_everywhere("copy", x, x, y, machine))


def add(x: View, z: View, y: View, machine: Machine, *, relu: bool = False) -> Steps:
    """x + z; then ReLU if asked for. y may be x or z."""
    return Steps.of(_everywhere("add relu" if relu else "add", x, z, y, machine))


def pointwise(x: View, y: View, machine: Machine, function: str, parameter: float = 0.0) -> Steps:
    """A function of every number, by its name in `functions.POINTWISE`. y may be x."""
    step = _everywhere(function, x, x, y, machine)
    return Steps.of(step._replace(job=step.job.but(parameter=np.array([parameter], np.float32))))


def affine(x: View, y: View, scale: Array, shift: Array, machine: Machine, *, relu: bool = False) -> Steps:
    """x scale + shift, by channel [C]; then ReLU if asked for. y may be x."""
    tables = {name: np.ascontiguousarray(table, np.float32) for name, table in (("scale", scale), ("shift", shift))}
    step = by_pixel("affine relu" if relu else "affine", x, x, y, machine)
    return Steps.of(step._replace(job=step.job.but(**tables)))


def softmax(x: View, y: View, machine: Machine) -> Steps:
    """exp(x) over its sum along the channels. y may be x."""
    kernel = Kernel("cpu.operators.rows_kernels.softmax_range", (machine.lanes("float32"),), RANGE)
    return Steps.of(by_pixel("", x, x, y, machine)._replace(kernel=kernel))


def by_pixel(function: str, x: View, z: View, y: View, machine: Machine) -> Step:
    """A function of pixels: items are rows."""
    rows, views = prod(y.size[:3]), {**strides("x", x), **strides("z", z), **strides("y", y)}
    sizes = {**axes("out", y.size[1:4]), "channels": y.channels, "total": rows * y.channels}
    kernel = Kernel("cpu.operators.rows_kernels.apply_range", (function, machine.lanes("float32")), RANGE)
    return Step(kernel, job(records.Rows, **views, **sizes), rows)


def _everywhere(function: str, x: View, z: View, y: View, machine: Machine) -> Step:
    """A function of numbers, whose channel does not matter: of pieces of memory where that is possible, else of rows as
    long as possible."""
    views, step = (x, z, y), by_pixel(function, x, z, y, machine)
    total = prod(y.size)
    if all(view.dense for view in views):
        items = ceil(total / PIECE)
        rows = {"x_h": PIECE * FLOAT, "z_h": PIECE * FLOAT, "y_h": PIECE * FLOAT}
        pieces = step.job.but(out_d=1, out_h=items, out_w=1, channels=PIECE, total=total, **rows)
        return step._replace(job=pieces, items=items)
    if all(view.strides[3] == view.channels * FLOAT for view in views):
        return step._replace(job=step.job.but(out_w=1, channels=y.size[3] * y.channels, total=total))
    return step
