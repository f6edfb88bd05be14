"""A Winograd layer as steps of a library: the fast kernels' own plan and records, with symbolic addresses."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lrw_kernels.cpu import conv, layout
from lrw_kernels.cpu.operators import rows
from lrw_kernels.cpu.operators.records import FLOAT
from lrw_kernels.cpu.operators.step import View
from lrw_kernels.cpu.problem import Activations, Epilogue, Problem
from lrw_kernels.network.operators import Array, Winograd
from lrw_kernels.program.collect import Collector


def add(to: Collector, index: int, operator: Winograd, inputs: Sequence[View], output: View) -> dict[str, Any]:
    """Its steps; returns what the manifest says of them."""
    p = _problem(to, operator, inputs[0], output, to.spare[index])
    whole = conv.Pass(p, conv.FORWARD, to.code)
    for side in (whole.source, *whole.targets):
        for table in (side.table, side.planes, side.constants):
            to.table(table)
        to.zeros(side, side.outside.address, side.outside.size)
    for table in whole.v_tables:
        to.table(table)
    to.zeros(whole, whole.no_bias, whole.zeros.nbytes)
    job = conv.Job(whole)
    weights = [to.weights(_panels(u, part.problem)) for u, part in zip(operator.weights, p.parts, strict=True)]
    bias = 0 if operator.bias is None else to.weights(_padded(operator.bias, p))
    # Kernels find a residual as they find the output; one that lies otherwise is added behind them.
    alike = len(inputs) > 1 and inputs[1].strides == output.strides
    late = inputs[1:] if not alike else ()
    scratch = to.scratch(index, whole.scratch)
    source, target = Activations(inputs[0].address, inputs[0].strides), Activations(output.address, output.strides)
    epilogue = Epilogue(bias, inputs[1].address if alike else 0, operator.relu and not late)
    job.point(source, target, weights, epilogue, scratch)
    for row in job.rows:
        to.records(row)
    for region in job.regions:
        to.step(region)
    for residual in late:
        to.run(index, rows.add(output, residual, output, to.machine, relu=operator.relu))
    kept = [{"channels": channels, "kept": list(kept)} for channels, kept in operator.blocks]
    return {"blocks": kept, "path": whole.plan.path}


def _problem(to: Collector, operator: Winograd, source: View, output: View, most_scratch: int) -> Problem:
    union = tuple(sorted({position for _, kept in operator.blocks for position in kept}))
    grouped, all_kept = len(operator.blocks) > 1, len(union) == operator.tile.positions
    return Problem(
        tile=str(operator.tile),
        padding=operator.padding,
        kept=None if all_kept else union,
        fixed=not all_kept,
        batch=source.size[0],
        input_size=source.size[1:4],
        cin=source.size[4],
        cout=output.size[4],
        kind="float32",
        element=to.element,
        machine=to.machine,
        threads=to.threads,
        sized=True,
        blocks=operator.blocks if grouped else None,
        pixels=(source.strides[3] // FLOAT, output.strides[3] // FLOAT),
        most_scratch=most_scratch,
    )


def _panels(u: Array, p: Problem) -> Any:
    """U [K, Cin, Cout] in panels; of a block without columns nothing."""
    with np.errstate(over="ignore"):
        source = np.ascontiguousarray(u, p.element)
    if not np.isfinite(source).all():
        raise ValueError(f"weights: beyond {p.element} in the Winograd domain; accepted are smaller ones, or float32")
    panels = np.zeros(p.weight_bytes // source.itemsize, p.element)
    shape = (u.shape[0], u.shape[1], u.shape[2])
    if panels.size:
        layout.pack(source.ctypes.data, panels.ctypes.data, shape, p.machine, p.element, transposed=False, workers=1)
    return panels


def _padded(bias: Array, p: Problem) -> Any:
    """[Cout] in whole vectors, and one more for blocks that begin inside one."""
    lanes = p.machine.lanes(p.element)
    return np.pad(bias.astype(np.float32), (0, -p.cout % lanes + lanes))
