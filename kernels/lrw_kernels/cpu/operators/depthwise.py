"""Builder of convolution channel by channel, or within groups of a few that fill a vector together."""

from math import ceil

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import FLOAT, Machine
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.grid import Grid, finish_fields, grid_fields
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import Epilogue, Step, View, axes, job, share_channels, strides


def fits(weight: Array, groups: int, machine: Machine) -> bool:
    """Whether groups of `weight` [kd, kh, kw, Cin / groups, Cout] have as many channels going in as coming out, and
    so few that several whole ones fill a vector."""
    group, lanes = weight.shape[3], machine.lanes("float32")
    return weight.shape[4] == groups * group and group < lanes and lanes % group == 0


def depthwise_step(x: View, y: View, weight: Array, grid: Grid, epilogue: Epilogue, machine: Machine) -> Step:
    """The step of a convolution in groups by weight [kd, kh, kw, C of a group, C]; the taps of an axis are equally far
    apart."""
    lanes, group = machine.lanes("float32"), weight.shape[3]
    chosen = weight[np.ix_(*([k for k, _ in axis] for axis in grid.taps))]
    taps = chosen[..., 0, 0].size
    packed = np.zeros((max(1, taps), group, ceil(y.channels / lanes) * lanes), np.float32)
    packed[:taps, :, : y.channels] = chosen.reshape(taps, group, y.channels)
    offsets = [[offset for _, offset in axis] for axis in grid.taps]
    first = [of[0] if of else 0 for of in offsets]
    by = [of[1] - of[0] if len(of) > 1 else 1 for of in offsets]
    start = (grid.start[0] + first[0], grid.start[1] + first[1], grid.start[2] + first[2])
    rows, split = share_channels(y, machine)
    made = job(
        records.Depthwise,
        **strides("x", x),
        **grid_fields(x, y, grid._replace(start=start)),
        **strides("y", y),
        **finish_fields(epilogue, y.channels, lanes),
        **axes("by", by),
        **axes("taps", [*map(len, offsets)]),
        weights=packed,
        weights_tap=group * packed.shape[2] * FLOAT,
        weights_channel=packed.shape[2] * FLOAT,
        channels=y.channels,
        split=split,
    )
    kernel = Kernel("cpu.operators.depthwise_kernels.depthwise_item", (lanes, group, epilogue.function), ITEM)
    return Step(kernel, made, rows * ceil(y.channels / split))
