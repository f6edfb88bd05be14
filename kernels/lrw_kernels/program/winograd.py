"""A Winograd layer of a network as steps: its problem, and its weights as kernels read them."""

import hashlib
from collections.abc import Hashable, Sequence
from math import prod
from weakref import WeakValueDictionary

import numpy as np

from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.machine import BYTES, LINE
from lrw_kernels.codegen.references import Section, section_of
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.operators import rows
from lrw_kernels.cpu.step import Epilogue, Held, Reference, Steps, Table, View
from lrw_kernels.cpu.winograd import conv
from lrw_kernels.cpu.winograd.problem import FORWARD, Problem
from lrw_kernels.network.operators import Array, Winograd
from lrw_kernels.network.transformed import Transformed
from lrw_kernels.program.means import Means

_SHARED: WeakValueDictionary[Hashable, Table] = WeakValueDictionary()  # as long as a program reads them


def steps(operator: Winograd, inputs: Sequence[View], y: View, means: Means) -> Steps:
    """The steps of a Winograd convolution `operator` from `inputs` to `y`, with what the manifest says of them."""
    p = _problem(operator, inputs[0], y, means)
    weights = _weights(operator, p, means)
    # Kernels find a residual as they find the output; one that lies otherwise is added behind them.
    alike = len(inputs) > 1 and inputs[1].strides == y.strides
    late = inputs[1:] if not alike else ()
    epilogue = Epilogue(operator.bias, inputs[1] if alike else None, None if late else operator.after)
    keep = None if late else means.keep
    made = conv.forward(p, inputs[0], y, weights, epilogue, means.planner(p, FORWARD), keep)
    added = [step for z in late for step in rows.binary("add", y, z, y, means.machine, operator.after).steps]
    kept = [{"channels": channels, "kept": list(kept)} for channels, kept in operator.blocks]
    return Steps((*made.steps, *added), made.shared, {"blocks": kept, **made.details}, made.sums)


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


def _weights(operator: Winograd, p: Problem, means: Means) -> list[Reference]:
    """The weights of each block as kernels read them."""
    weights = operator.weights
    if not isinstance(weights, Transformed):
        return [layout.panels(_numbers(u, p), p.machine) for u, p in zip(weights, p.parts, strict=True)]
    return [Held(_shared(weights, p)) if means.in_place else _packed(weights, p)]


def _shared(weights: Transformed, p: Problem) -> Table:
    """Those of a filter, once for all programs of this process that read them."""
    content = hashlib.blake2b(np.ascontiguousarray(weights.filter).data, digest_size=32).digest()
    key = content, weights.filter.shape, str(weights.tile), p.element, p.machine
    found = _SHARED.get(key)
    return found if found is not None else _SHARED.setdefault(key, _packed(weights, p))


def _packed(weights: Transformed, p: Problem) -> Table:
    """Those of a filter, some input channels at a time: all of U in float64 would be large."""
    shape = layout.panels_shape((weights.tile.positions, *weights.filter.shape[3:]), p.machine, p.element)
    made = Memory.of(prod(shape) * BYTES[p.element]).view(prod(shape) * BYTES[p.element]).view(p.element)
    for first, u in weights.parts():
        layout.put_rows(made.reshape(shape), _numbers(u, p), first, weights.filter.shape[3], p.machine)
    return made


def _numbers(u: Array, p: Problem) -> Table:
    with np.errstate(over="ignore"):
        numbers = u.astype(p.element, copy=False)
    if not np.isfinite(numbers).all():
        raise ValueError(f"weights: beyond {p.element} in the Winograd domain; accepted are smaller ones, or float32")
    return numbers
