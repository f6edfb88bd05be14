"""The steps of every operator: what its kernels' builders make of it."""

from collections.abc import Sequence
from typing import Any

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import convolution, gather, linear, norm, order, pool, resample, rows, transposed
from lrw_kernels.cpu.step import Epilogue, Step, Steps, Sums, View
from lrw_kernels.network.operators import (
    Affine,
    Binary,
    Channels,
    ChannelsFirst,
    Concat,
    Copy,
    Direct,
    Gather,
    Linear,
    Normalise,
    Operator,
    Pointwise,
    Pool,
    Resample,
    Softmax,
    Transposed,
    Winograd,
)
from lrw_kernels.program import winograd
from lrw_kernels.program.means import Means


def of(operator: Operator, inputs: Sequence[View], y: View, means: Means, sums: Sums | None = None) -> Steps:
    """The steps that compute `y` of `inputs`; their details are what the manifest says of them. `sums`: those that the
    first input's operator left."""
    x, machine = inputs[0], means.machine
    match operator:
        case Winograd():
            return winograd.steps(operator, inputs, y, means)
        case Direct():
            return convolution.convolution(x, y, operator.weight, machine, **_convolution(operator, inputs))
        case Linear():
            return linear.linear(x, y, operator.weight, machine, _epilogue(operator, inputs))
        case Transposed():
            return transposed.transposed(x, y, operator.weight, machine, **_convolution(operator, inputs))
        case Normalise():
            return norm.normalise(x, inputs[1] if len(inputs) > 1 else None, y, operator, machine, sums)
        case Concat():
            return _side_by_side(inputs, y, machine)
        case Channels():
            return Steps(_copied(x.some(operator.first, operator.count), y, machine))
        case Gather():
            return gather.gather(x, y, machine, operator.index, operator.value)
        case Pool():
            windows = {"starts": operator.starts, "ends": operator.ends, "counts": operator.counts}
            return pool.pool(x, y, machine, operator.kind, **windows)
        case Resample():
            return resample.resample(x, y, machine, low=operator.low, high=operator.high, share=operator.share)
        case Pointwise():
            return rows.pointwise(x, y, machine, operator)
        case Binary():
            return rows.binary(operator.kind, x, inputs[1], y, machine, operator.after)
        case Affine():
            return rows.affine(x, y, operator.scale, operator.shift, machine, operator.after)
        case Softmax():
            return rows.softmax(x, y, machine)
        case ChannelsFirst():
            return order.channels_first(x, y, machine)
        case Copy():
            return rows.copy(x, y, machine)


def _convolution(operator: Direct | Transposed, inputs: Sequence[View]) -> dict[str, Any]:
    return {
        "stride": operator.stride,
        "padding": operator.padding,
        "dilation": operator.dilation,
        "groups": operator.groups,
        "epilogue": _epilogue(operator, inputs),
    }


def _epilogue(operator: Direct | Transposed | Linear, inputs: Sequence[View]) -> Epilogue:
    return Epilogue(operator.bias, inputs[1] if len(inputs) > 1 else None, operator.after)


def _side_by_side(inputs: Sequence[View], output: View, machine: Machine) -> Steps:
    """The steps of a concatenation: a copy of each input that does not lie in its channels of `output` already."""
    made: list[Step] = []
    first = 0
    for source in inputs:
        target = output.some(first, source.channels)
        first += source.channels
        made += _copied(source, target, machine)
    return Steps(tuple(made))


def _copied(source: View, target: View, machine: Machine) -> tuple[Step, ...]:
    """The steps of a copy; none where `source` lies there already."""
    return () if source.address == target.address else rows.copy(source, target, machine).steps
