"""Builder of convolutions by patches: what each output pixel meets is gathered, and each weight meets all patches."""

from math import ceil
from typing import Any

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import ADDRESS, FLOAT, Machine, whole_lines
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.micro import patch_micro, patch_row
from lrw_kernels.cpu.operators import records, taps
from lrw_kernels.cpu.operators.grid import Grid, finish_fields, grid_fields
from lrw_kernels.cpu.operators.taps import Array
from lrw_kernels.cpu.step import ITEMS, Epilogue, Job, Step, View, job, strides

PIXELS = 64  # of a work item: its patches (a chunk of 256 numbers) and products stay in the second-level cache


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
    kernel = Kernel("cpu.operators.patches_kernels.patches_item", (wide, narrow, epilogue.function), ITEM)
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
