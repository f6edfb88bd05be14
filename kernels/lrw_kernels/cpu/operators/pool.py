"""Builder of pooling."""

from collections.abc import Sequence
from math import ceil, prod

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.step import Step, Steps, Table, View, axes, integers, job, share_channels, strides

Axes = tuple[Sequence[int], Sequence[int], Sequence[int]]
MOST_PIXELS = 27  # of a window in straight code
Tables = dict[str, Table]


def pool(x: View, y: View, machine: Machine, kind: str, *, starts: Axes, ends: Axes, counts: Axes) -> Steps:
    """The maximum ("max"; of nothing -inf) or the mean ("mean") over windows: output o of an axis takes inputs
    starts[o]..ends[o] (not included); a mean divides by the product of the axes' counts[o]."""
    tables = {**by_axis("starts", starts), **by_axis("ends", ends), **by_axis("counts", counts)}
    rows, split = share_channels(y, machine)
    made = job(records.Pool, **from_to(x, y), **tables, channels=y.channels, split=split)
    arguments = (kind, _shape(starts, ends), machine.lanes("float32"))
    kernel = Kernel("cpu.operators.pool_kernels.pool_item", arguments, ITEM)
    return Steps.of(Step(kernel, made, rows * ceil(y.channels / split)))


def _shape(starts: Axes, ends: Axes) -> str:
    """The size of all windows, such as "2x2x2", if they have one of at most MOST_PIXELS pixels (unrolled), else ""."""
    sizes = [{end - start for start, end in zip(*axis, strict=True)} for axis in zip(starts, ends, strict=True)]
    shape = [size for of_axis in sizes for size in of_axis if len(of_axis) == 1 and size > 0]
    return "x".join(map(str, shape)) if len(shape) == 3 and prod(shape) <= MOST_PIXELS else ""


def by_axis(name: str, values: Axes) -> Tables:
    """Tables of int64 by axis as a record's fields: name_d, name_h, name_w."""
    return {f"{name}_{axis}": integers(of_axis) for axis, of_axis in zip("dhw", values, strict=True)}


def from_to(x: View, y: View) -> dict[str, int]:
    """Both views and the output's size as a record's fields."""
    return {**strides("x", x), **strides("y", y), **axes("out", y.size[1:4])}
