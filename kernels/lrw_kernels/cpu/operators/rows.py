"""Builders of what is done to every pixel alike."""

from math import ceil, prod

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import Step, Steps, View, axes, job, parameters_of, strides
from lrw_kernels.network.operators import BY_CHANNEL, Pointwise

PIECE = 8192  # numbers of a work item where activations are one piece of memory
SWAPPED = {"subtract": "subtract_from", "divide": "divide_into"}  # kinds for which the order matters
TOGETHER = 2048  # numbers of pixels that are computed as one: vectors [C] as often stay in the first-level cache


def copy(x: View, y: View, machine: Machine) -> Steps:
    """The same numbers, elsewhere: also how inputs come side by side in a wider buffer."""
    return Steps.of(_everywhere("copy", x, x, y, machine))


def binary(kind: str, x: View, z: View, y: View, machine: Machine, after: Pointwise | None = None) -> Steps:
    """x and z put together by `kind`, one of `functions.BINARY` such as "add"; then a function, if there
    is one. Sizes of 1 of either stand for all of y's. y may be the one of its own size."""
    if x.channels < y.channels:
        x, z, kind = z, x, SWAPPED.get(kind, kind)
    words, x, z = chained(kind, after), _stretched(x, y), _stretched(z, y)
    if z.channels < y.channels:
        step = by_pixel(f"single {words}", x, z, y, machine)
    else:
        step = (by_pixel if BY_CHANNEL in words else _everywhere)(words, x, z, y, machine)
    return Steps.of(step._replace(job=step.job.but(parameters=parameters_of(after))))


def pointwise(x: View, y: View, machine: Machine, of: Pointwise) -> Steps:
    """A function of every number. y may be x."""
    if of.function == BY_CHANNEL:
        return Steps.of(_with_vectors(of.function, x, y, machine, parameters=parameters_of(of)))
    step = _everywhere(of.function, x, x, y, machine)
    return Steps.of(step._replace(job=step.job.but(parameters=parameters_of(of))))


def affine(x: View, y: View, scale: Array, shift: Array, machine: Machine, after: Pointwise | None = None) -> Steps:
    """x scale + shift, by channel [C]; then a function, if there is one. y may be x."""
    vectors, given = {"scale": scale, "shift": shift}, {"parameters": parameters_of(after)}
    words = chained("affine", after)
    if BY_CHANNEL in words:
        vectors, given = vectors | given, {}
    step = _with_vectors(words, x, y, machine, **vectors)
    return Steps.of(step._replace(job=step.job.but(**given)))


def softmax(x: View, y: View, machine: Machine) -> Steps:
    """exp(x) over its sum along the channels. y may be x."""
    kernel = Kernel("cpu.operators.rows_kernels.softmax_item", (machine.lanes("float32"),), ITEM)
    return Steps.of(by_pixel("", x, x, y, machine)._replace(kernel=kernel))


def chained(name: str, after: Pointwise | None) -> str:
    """The chain of functions of `emit_rows.emit_apply` that `name` is, then what comes after it."""
    return name if after is None else f"{name} {after.function}"


def by_pixel(function: str, x: View, z: View, y: View, machine: Machine) -> Step:
    """A function of pixels: items are rows."""
    rows, views = prod(y.size[:3]), {**strides("x", x), **strides("z", z), **strides("y", y)}
    sizes = {**axes("out", y.size[1:4]), "channels": y.channels, "total": rows * y.channels}
    kernel = Kernel("cpu.operators.rows_kernels.apply_item", (function, machine.lanes("float32")), ITEM)
    return Step(kernel, job(records.Rows, **views, **sizes), rows)


def _stretched(x: View, y: View) -> View:
    """`x` with as many pixels as `y`: the same one again along axes where it has a single one."""
    steps = [0 if size == 1 else stride for size, stride in zip(x.size, x.strides, strict=False)]
    same = x.size[:4] == y.size[:4]
    return x if same else View(x.address, (steps[0], steps[1], steps[2], steps[3]), (*y.size[:4], x.channels))


def _with_vectors(function: str, x: View, y: View, machine: Machine, **vectors: Array) -> Step:
    """A function of pixels and `vectors` [C]: of several pixels at once where they lie side by side, with the vectors
    as often, because few channels are no whole vector of the machine's."""
    step, c, pixels = by_pixel(function, x, x, y, machine), y.channels, y.size[3]
    together = all(view.strides[3] == c * FLOAT for view in (x, y))
    most = max(1, TOGETHER // c) if together else 1
    times = max(n for n in range(1, min(most, pixels) + 1) if pixels % n == 0)
    steps = {f"{name}_w": times * view.strides[3] for name, view in (("x", x), ("z", x), ("y", y))}
    sizes = {"out_w": pixels // times, "channels": times * c, "total": step.items * times * c}
    tables = {name: np.tile(np.asarray(vector, np.float32), times) for name, vector in vectors.items()}
    return step._replace(job=step.job.but(**steps, **sizes, **tables))


def _everywhere(function: str, x: View, z: View, y: View, machine: Machine) -> Step:
    """A function of numbers, whose channel does not matter: of pieces of memory where activations are one, else of
    rows, or pixel by pixel."""
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
