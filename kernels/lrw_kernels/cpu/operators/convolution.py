"""Builder of convolution: by products, a step for as many groups as fill a vector; channel by channel where groups have
few."""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import ADDRESS, FLOAT, Machine, whole_lines
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.micro import patch_micro, patch_row
from lrw_kernels.cpu.operators import neighbours, records, taps
from lrw_kernels.cpu.operators.depthwise import depthwise_step, fits
from lrw_kernels.cpu.operators.grid import Grid, Triple, finish_fields, grid_fields
from lrw_kernels.cpu.operators.neighbours import Part
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import ITEMS, PLAIN, Epilogue, Job, Step, Steps, View, job, strides

PIXELS = 64  # of a work item: its patches (a chunk of 256 numbers) and products stay in the second-level cache


def convolution(
    x: View,
    y: View,
    weight: Array,
    machine: Machine,
    *,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    groups: int = 1,
    epilogue: Epilogue = PLAIN,
) -> Steps:
    """The steps of a convolution of x by weight [kd, kh, kw, Cin / groups, Cout] to y."""
    met = [tuple((k, k * by) for k in range(n)) for n, by in zip(weight.shape[:3], dilation, strict=True)]
    start = (-padding[0], -padding[1], -padding[2])
    grid = Grid(start, stride, (met[0], met[1], ()))
    return Steps(in_phases(x, y, weight, grid, [met[2]], groups, epilogue, machine))


def in_phases(
    x: View, y: View, weight: Array, grid: Grid, phases: Sequence[Taps], groups: int, epilogue: Epilogue,
    machine: Machine,
) -> tuple[Step, ...]:  # fmt: skip
    """The steps of a convolution whose outputs along w come in runs of pixels with the taps `phases`, of
    neighbours together where that costs least."""
    whole = neighbours.Part(y, weight, grid, epilogue)
    count = neighbours.best(whole, phases, machine.lanes("float32")) if groups == 1 else 0
    parts = neighbours.together(whole, phases, count) if count else neighbours.alone(whole, phases)
    steps: list[Step] = []
    for part in parts:
        if part.y.pixels > 0:
            steps += on_grid(x, part, groups, machine)
    return tuple(steps)


def on_grid(x: View, whole: Part, groups: int, machine: Machine) -> tuple[Step, ...]:
    """The steps of a convolution on any grid: one if its groups have few channels, else one for as many groups as fill
    a vector."""
    y, weight, grid, epilogue = whole
    if groups > 1 and fits(weight, groups, machine):
        return (depthwise_step(x, y, weight, grid, epilogue, machine),)
    most = max(1, machine.lanes("float32") * groups // weight.shape[4])
    weight, groups = _joined(weight, groups, max(n for n in range(1, min(most, groups) + 1) if groups % n == 0))
    cin, size = weight.shape[3], weight.shape[4] // groups
    steps = list[Step]()
    for group in range(groups):
        here, part = slice(group * size, (group + 1) * size), epilogue.some(group * size, size)
        source, target = x.some(group * cin, cin), y.some(group * size, size)
        steps.append(patches_step(source, target, weight[..., here], grid, part, machine))
    return tuple(steps)


def _joined(weight: Array, groups: int, count: int) -> tuple[Array, int]:
    """The weight of `count` groups at a time as one, zeros between them, and how many there are of these."""
    if count == 1:
        return weight, groups
    *taps, cin, cout = weight.shape
    wide = np.zeros((*taps, count, cin, groups // count, count, cout // groups), np.float32)
    for at, some in enumerate(np.moveaxis(weight.reshape(*taps, cin, groups // count, count, cout // groups), 5, 0)):
        wide[:, :, :, at, :, :, at] = some
    return wide.reshape(*taps, count * cin, cout), groups // count


def patches_step(x: View, y: View, weight: Array, grid: Grid, epilogue: Epilogue, machine: Machine) -> Step:
    """The step that convolves one group: gather patches, multiply by packed weights [terms, Cout], finish."""
    cin, lanes = weight.shape[3], machine.lanes("float32")
    pixel_floats = x.strides[3] // FLOAT
    machine = machine.with_rows(1) if y.pixels == 1 else machine
    of = taps.runs(grid.taps, cin, pixel_floats)
    pieces, weights = taps.pieces(of, cin), layout.panels(taps.weight_rows(weight, of)[None], machine)
    made = job(
        records.Patches,
        **strides("x", x),
        **grid_fields(x, y, grid),
        **strides("y", y),
        **finish_fields(epilogue, y.channels, lanes),
        row_floats=(x.size[3] - 1) * pixel_floats + cin,
        pixel_floats=pixel_floats,
        chunk_table=pieces.chunks,
        pieces=pieces.table,
        chunks=len(pieces.chunks) - 1,
        terms=pieces.terms,
        weights=weights,
        weights_panel=pieces.terms * machine.vectors * machine.vector_bytes,
        vectors=machine.vectors_of(y.channels, "float32"),
        panel_vectors=machine.vectors,
        channels=y.channels,
        pixels=y.pixels,
    )
    made, items, scratch = _shared_out(made, machine)
    alone: bool = made.record.share <= machine.rows
    wide, narrow = (patch_micro(machine, count, alone=alone).text for count in (machine.vectors, 1))
    kernel = Kernel("cpu.operators.convolution_kernels.patches_item", (wide, narrow, epilogue.function), ITEM)
    return Step(kernel, made, items, scratch)


def _shared_out(made: Job, machine: Machine) -> tuple[Job, int, int]:
    """(`made` with the pixels and panels a work item takes, how many work items there are, their scratch in bytes).
    Where there are few pixels, weights are shared out as well."""
    record: Any = made.record
    rows, line = machine.rows, machine.vector_bytes
    panels = machine.panels(record.vectors)
    heights = max(1, min(PIXELS // rows, ceil(ceil(record.pixels / rows) / ITEMS)))
    shares = ceil(record.pixels / (heights * rows))
    most = max(1, machine.l2 // 2 // (heights * rows * machine.vectors * line))
    split = min(most, ceil(panels / ceil(ITEMS / shares)))
    vectors = min(record.vectors, split * machine.vectors)
    places = whole_lines(min(heights * rows, record.pixels) * records.PLACE_FIELDS * ADDRESS)
    patches = heights * rows * patch_row(machine)
    m_panel = vectors * rows * line
    made = made.but(
        panels=panels,
        split=split,
        share=heights * rows,
        a_at=places,
        m_at=places + patches,
        m_panel=m_panel,
    )
    return made, shares * ceil(panels / split), whole_lines(places + patches + heights * m_panel)
