"""Builder of convolutions that read activations where they lie, box by box."""

from itertools import accumulate
from math import ceil

import numpy as np

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import ADDRESS, Machine, whole_lines
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.operators import records
from lrw_kernels.cpu.operators.box import Box, Entries, boxes, entries
from lrw_kernels.cpu.operators.grid import Part
from lrw_kernels.cpu.step import ITEMS, Job, Step, View, job

PIXELS = 64  # of a share: its products and the numbers they are made of stay in the caches of a core
MOST_ITEMS = 128  # that go out, each of shares side by side: what their pixels meet in common, a core reads once


def boxes_step(x: View, part: Part, machine: Machine) -> Step:
    """The step that convolves one group by weight [kd, kh, kw, Cin, Cout]."""
    y, weight, grid, epilogue, places = part
    lanes, rows, line, channels = machine.lanes("float32"), machine.rows, machine.vector_bytes, weight.shape[4]
    vectors, used = machine.vectors_of(channels, "float32"), [[k for k, _ in axis] for axis in grid.taps]
    terms = weight[np.ix_(*used)].reshape(-1, channels)
    found = sorted(boxes(x, y, grid, epilogue.residual), key=lambda box: -box.pixels)
    panels, blocks = machine.panels(vectors), [box.blocks(rows) for box in found]
    share = max(1, min(PIXELS // rows, ceil(sum(blocks) / ITEMS)))
    ends = [*accumulate(ceil(count / share) for count in blocks)]
    jobs = [
        _box_job(box, end, rows, *entries(box.taps, used, x.strides, weight.shape[3], lanes))
        for box, end in zip(found, ends, strict=True)
    ]
    split = ceil(panels / min(panels, ceil(ITEMS / ends[-1])))
    shares = ends[-1] * ceil(panels / split)
    run = max(1, shares // MOST_ITEMS)
    m_at = whole_lines((share + 1) * records.BLOCK_FIELDS * ADDRESS)
    m_block = min(vectors, split * machine.vectors) * rows * line
    made = job(
        records.Boxes,
        boxes=jobs,
        residual=epilogue.residual.address if epilogue.residual else 0,
        **epilogue.fields(vectors * lanes),
        places=np.array(places, np.int64),
        piece=y.channels,
        weights=layout.panels(np.ascontiguousarray(terms)[None], machine),
        weights_vector=len(terms) * line,
        panels=panels,
        split=split,
        vectors=vectors,
        panel_vectors=machine.vectors,
        channels=channels,
        share=share,
        shares=shares,
        run=run,
        m_at=m_at,
        m_block=m_block,
    )
    kernel = Kernel("cpu.operators.boxes_kernels.boxes_item", (lanes, rows, machine.vectors, epilogue.function), ITEM)
    return Step(kernel, made, ceil(shares / run), m_at + share * m_block)


def _box_job(box: Box, end: int, rows: int, runs: Entries, singles: Entries) -> Job:
    line, *others = box.axes
    table = np.concatenate([runs, singles]) if len(runs) + len(singles) else np.zeros((1, 2), np.int64)
    made = job(
        records.Box,
        end=end,
        blocks=box.blocks(rows),
        height=box.height(rows),
        pixels=line.length,
        entries=table,
        runs=len(runs),
        singles=len(singles),
        **{name: axis.length for name, axis in zip(("inner", "middle", "outer"), others, strict=True)},
    )
    for i, name in enumerate(("x", "y", "residual")):
        by = zip(("pixel", "inner", "middle", "outer"), box.axes, strict=True)
        made = made.but(**{name: box.first[i]}, **{f"{name}_{axis}": of[1 + i] for axis, of in by})
    return made
