"""The steps of every operator: its kernels' records, their tables and weights, in a collector's hands."""

from collections.abc import Sequence
from typing import Any

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.operators import direct, norm, order, rows, transposed, window
from lrw_kernels.cpu.operators.step import Step, View
from lrw_kernels.network.graph import Node
from lrw_kernels.network.operators import (
    Add,
    Affine,
    ChannelsFirst,
    Concat,
    Copy,
    Direct,
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
from lrw_kernels.program.collect import Collector


def add(to: Collector, index: int, node: Node, inputs: Sequence[View], output: View) -> dict[str, Any]:
    """Give `to` the steps of `node`; returns what the manifest says of it beside its name and size."""
    operator = node.operator
    if isinstance(operator, Winograd):
        return winograd.add(to, index, operator, inputs, output)
    if isinstance(operator, Normalise):
        workspace = to.scratch(index, norm.workspace_bytes(inputs[0]))
        weights = (operator.groups, operator.epsilon, operator.scale, operator.shift)
        made: Sequence[Step] = norm.normalise(inputs[0], output, *weights, to.machine, workspace)
    elif isinstance(operator, Direct | Transposed):
        made = _convolution(operator, inputs, output, to.machine)
    elif isinstance(operator, Concat):
        made = _side_by_side(inputs, output, to.machine)
    else:
        made = _plain(operator, inputs, output, to.machine)
    to.run(index, made)
    return {}


def _convolution(
    operator: Direct | Transposed, inputs: Sequence[View], output: View, machine: Machine
) -> Sequence[Step]:
    build = direct.direct if isinstance(operator, Direct) else transposed.transposed
    residual = inputs[1] if len(inputs) > 1 else None
    return build(
        inputs[0],
        output,
        operator.weight,
        machine,
        stride=operator.stride,
        padding=operator.padding,
        dilation=operator.dilation,
        groups=operator.groups,
        epilogue=direct.Epilogue(operator.bias, residual, operator.relu),
    )


def _side_by_side(inputs: Sequence[View], output: View, machine: Machine) -> Sequence[Step]:
    """Copies of those inputs that do not lie in their place already."""
    made: list[Step] = []
    first = 0
    for source in inputs:
        target = output.some(first, source.channels)
        first += source.channels
        if source.address != target.address:
            made += rows.copy(source, target, machine)
    return made


def _plain(operator: Operator, inputs: Sequence[View], y: View, machine: Machine) -> Sequence[Step]:
    x = inputs[0]
    match operator:
        case Pool():
            windows = {"starts": operator.starts, "ends": operator.ends, "counts": operator.counts}
            return window.pool(x, y, machine, operator.kind, **windows)
        case Resample():
            return window.resample(x, y, machine, low=operator.low, high=operator.high, share=operator.share)
        case Pointwise():
            return rows.pointwise(x, y, machine, operator.function, operator.parameter)
        case Add():
            return rows.add(x, inputs[1], y, machine, relu=operator.relu)
        case Affine():
            return rows.affine(x, y, operator.scale, operator.shift, machine, relu=operator.relu)
        case Softmax():
            return rows.softmax(x, y, machine)
        case ChannelsFirst():
            return order.channels_first(x, y, machine)
        case Copy():
            return rows.copy(x, y, machine)
    raise TypeError(f"no steps for {type(operator).__name__}")
