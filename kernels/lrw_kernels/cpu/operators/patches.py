"""Builder of convolutions by patches: what each output pixel meets is gathered, and each weight meets all patches."""

from itertools import accumulate
from math import ceil
from typing import Any

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import ADDRESS, FLOAT, Machine, whole_lines
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.micro import patch_micro, patch_row
from lrw_kernels.cpu.operators import records, taps
from lrw_kernels.cpu.operators.grid import Part, finish_fields, grid_fields
from lrw_kernels.cpu.step import ITEMS, Job, Step, View, job, strides

# Of a work item, rounded up to whole panels: its patches (a chunk of 256 numbers) and products stay in a core's cache.
PIXELS = 64


def patches_step(x: View, part: Part, machine: Machine) -> Step:
    """The step that convolves one group: gather patches, multiply by packed weights [terms, Cout], finish."""
    y, weight, grid, epilogue, _ = part
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
    As many pixels as possible meet the same weights, which are shared out as well where there are few pixels."""
    record: Any = made.record
    rows, line = machine.rows, machine.vector_bytes
    blocks, panels = ceil(record.pixels / rows), machine.panels(record.vectors)
    shares = max(ceil(blocks / ceil(PIXELS / rows)), min(blocks, ceil(ITEMS / panels)))
    heights = ceil(blocks / shares)
    shares = ceil(blocks / heights)
    most = max(1, machine.l2 // 2 // (heights * rows * machine.vectors * line))
    split = min(most, ceil(panels / ceil(ITEMS / shares)))
    vectors = min(record.vectors, split * machine.vectors)
    m_panel = vectors * rows * line
    sizes = {
        "places": min(heights * rows, record.pixels) * records.PLACE_FIELDS * ADDRESS,
        "listed_at": heights * rows * ADDRESS,
        "a_at": heights * rows * patch_row(machine),
        "m_at": heights * m_panel,
        "beside_at": heights * m_panel,
    }
    ends = [*accumulate(map(whole_lines, sizes.values()))]
    starts = dict(zip([*sizes][1:], ends, strict=False))
    made = made.but(panels=panels, split=split, share=heights * rows, m_panel=m_panel, **starts)
    return made, shares * ceil(panels / split), ends[-1]
