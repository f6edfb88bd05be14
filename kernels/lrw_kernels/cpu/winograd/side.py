"""One transform of a problem as kernels see it: which recipe, the record of its sizes, how much scratch."""

from typing import Any

import numpy as np

from lrw_kernels.codegen.machine import BYTES, whole_lines
from lrw_kernels.cpu.step import Zeros, axes, job
from lrw_kernels.cpu.winograd import library, records
from lrw_kernels.cpu.winograd.plan import Plan
from lrw_kernels.cpu.winograd.problem import Problem
from lrw_kernels.cpu.winograd.recipe import REACH, Recipe
from lrw_kernels.winograd import Tile

MACHINE_OPTIONS = ("spare_adders", "prefetch", "native_maximum", "by_element")


class Side:
    """A transform between activations and the domain.

    `way` and `table` are the recipe's; `vectors` of channels lie in a panel of the domain, `split` of them a work item
    takes; `pixel` is the bytes from one activation to the next, `plane` those from one position to the next. `job`
    lacks only where activations and the domain lie, and which tiles.
    """

    def __init__(
        self, p: Problem, way: str, table: str, plan: Plan, vectors: int, split: int, *, pixel: int, plane: int,
        **options: Any,
    ) -> None:  # fmt: skip
        tile, of_input = Tile.parse(p.tile), table == "B"
        channels, size = (p.cin, p.input_size) if of_input else (p.cout, p.output_size)
        start = tile.starts(p.padding) if of_input else tile.starts()
        kept = p.kept if p.fixed else None
        lanes = p.machine.lanes(p.element)
        options |= {name: getattr(p.machine, name) for name in MACHINE_OPTIONS}
        self.plane = plane
        # Positions that are not kept share a plane before the others: where gathers drop theirs, of zeros for scatters.
        self.spare = self.plane if p.kept is not None and not p.fixed else 0
        if p.sized and p.machine.by_element and not self.spare:
            options["plane"] = self.plane
        self.recipe = Recipe(way, table, p.tile, p.element, lanes, p.kind, kept, **options)
        self._place(p, tile)
        constants = np.array([float(c) for c in self.recipe.constants], p.element)
        constants = np.pad(constants, (0, max(-constants.size % lanes, lanes - constants.size)))  # one vector at least
        # A row of zeros for rows outside, and one of scratch for what falls there: as long as others, for all tiles.
        columns = (tile.grid(p.output_size)[2] - 1) * self.recipe.step + self.recipe.patch[2]
        row = whole_lines(columns * max(pixel, channels * BYTES[p.kind]) + self.recipe.kind_bytes)
        self.scratch = self.recipe.scratch_bytes + row
        self.panel = vectors * plan.rows * p.machine.vector_bytes
        self.job = job(
            records.Transform,
            **axes("size", size),
            **axes("grid", tile.grid(p.output_size)),
            **axes("start", start),
            **axes("step", tile.outputs),
            channels=channels,
            vectors=p.machine.vectors_of(channels, p.element),
            split=split,
            shift=plan.rows * p.machine.vector_bytes if way == "scatter" else 0,
            rows=plan.rows,
            panel=self.panel,
            table=self.table,
            zeros=Zeros(row),
            constants=constants,
            kernel=library.transform(self.recipe),
        )

    def _place(self, p: Problem, tile: Tile) -> None:
        """`planes` [K], where the kept positions lie, `table`, where the recipe's do, and the `bytes` of all."""
        self.planes = self.spare + np.arange(p.columns, dtype=np.int64) * self.plane
        self.bytes = self.spare + self.plane * p.columns
        self.table = self.planes
        if self.recipe.plane:
            self.table = np.arange(self.recipe.reaches, dtype=np.int64) * REACH
        elif self.spare:
            self.table = np.zeros(tile.positions, np.int64)
            self.table[list(p.kept or ())] = self.planes
