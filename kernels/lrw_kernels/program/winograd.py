"""A Winograd layer of a network as steps: its problem, and its weights as kernels read them."""

from collections.abc import Sequence

import numpy as np

from lrw_kernels.codegen.machine import LINE
from lrw_kernels.codegen.references import Section, section_of
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.operators import rows
from lrw_kernels.cpu.step import Epilogue, Steps, Table, View
from lrw_kernels.cpu.winograd import conv
from lrw_kernels.cpu.winograd.problem import FORWARD, Problem
from lrw_kernels.network.operators import Array, Winograd
from lrw_kernels.program.means import Means


def steps(operator: Winograd, inputs: Sequence[View], y: View, means: Means) -> Steps:
    """The steps of a Winograd convolution `operator` from `inputs` to `y`, with what the manifest says of them."""
    p = _problem(operator, inputs[0], y, means)
    weights = [_panels(u, part) for u, part in zip(operator.weights, p.parts, strict=True)]
    # Kernels find a residual as they find the output; one that lies otherwise is added behind them.
    alike = len(inputs) > 1 and inputs[1].strides == y.strides
    late = inputs[1:] if not alike else ()
    epilogue = Epilogue(operator.bias, inputs[1] if alike else None, None if late else operator.after)
    made = conv.forward(p, inputs[0], y, weights, epilogue, means.planner(p, FORWARD))
    added = [step for z in late for step in rows.binary("add", y, z, y, means.machine, operator.after).steps]
    kept = [{"channels": channels, "kept": list(kept)} for channels, kept in operator.blocks]
    return Steps((*made.steps, *added), made.shared, {"blocks": kept, **made.details})


def _problem(operator: Winograd, source: View, output: View, means: Means) -> Problem:
    union = tuple(sorted({position for _, kept in operator.blocks for position in kept}))
    grouped, all_kept = len(operator.blocks) > 1, len(union) == operator.tile.positions
    ours = section_of(output.address) >= Section.BUFFER  # a caller's output may lie anywhere
    return Problem(
        tile=str(operator.tile),
        padding=operator.padding,
        kept=None if all_kept else union,
        fixed=not all_kept,
        batch=source.size[0],
        input_size=source.size[1:4],
        cin=source.channels,
        cout=output.channels,
        kind="float32",
        element=means.element,
        machine=means.machine,
        threads=means.threads,
        sized=True,
        blocks=operator.blocks if grouped else None,
        aligned=ours and all(at % LINE == 0 for at in (output.address, *output.strides)),
        most_scratch=means.spare,
    )


def _panels(u: Array, p: Problem) -> Table:
    """U [K, Cin, Cout] packed in panels of `p.element`; an empty table for a block without columns (K = 0)."""
    with np.errstate(over="ignore"):
        numbers = u.astype(p.element)
    if not np.isfinite(numbers).all():
        raise ValueError(f"weights: beyond {p.element} in the Winograd domain; accepted are smaller ones, or float32")
    return layout.panels(numbers, p.machine)
