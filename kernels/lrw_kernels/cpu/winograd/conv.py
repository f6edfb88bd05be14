"""Winograd convolution and its gradients as steps: the plan, the records, the parallel regions.

One contraction, three sets of free indices, as in `lrw_kernels.reference.conv`; activations [N, D, H, W, C] with
contiguous channels, of any of the kinds in `machine.BYTES`, transformed weights in panels (`layout.pack`).
"""

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.machine import BYTES, whole_lines
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.library import clear_item
from lrw_kernels.cpu.records import Clear
from lrw_kernels.cpu.step import PLAIN, Epilogue, Job, Keep, Reference, Step, Steps, Sums, View, job
from lrw_kernels.cpu.winograd import library, records
from lrw_kernels.cpu.winograd.plan import Counts, Plan, gradient_panels, plane_bytes, planned
from lrw_kernels.cpu.winograd.problem import FORWARD, INPUT_GRAD, WEIGHT_GRAD, Problem
from lrw_kernels.cpu.winograd.side import Side
from lrw_kernels.winograd import Tile


def forward(
    p: Problem, x: View, y: View, weights: Sequence[Reference], epilogue: Epilogue = PLAIN, plan: Plan | None = None,
    keep: Keep | None = None,
) -> Steps:  # fmt: skip
    """Y [N, D', H', W', Cout] of x and U in panels; of a problem in blocks those of each block. A residual lies as y
    does. By `plan`, or the one of formulas. Sums of Y by channel come along where there is memory to `keep` them in: by
    tiles, in float32, of blocks that fill vectors."""
    return _Pass(p, FORWARD, x, y, weights, epilogue, plan, keep).steps()


def input_grad(p: Problem, dy: View, dx: View, weights: Reference, plan: Plan | None = None) -> Steps:
    """The gradient dX of dY and U^T in panels, added to what `dx` holds; by a plan by positions."""
    return _Pass(p, INPUT_GRAD, dy, dx, [weights], PLAIN, plan).steps()


def weight_grad(p: Problem, x: View, dy: View, du: Reference, plan: Plan | None = None) -> Steps:
    """The gradient dU [K, rows, columns] of x and dY, rows (Cin) and columns (Cout) padded to whole vectors; by a plan
    by positions."""
    return _Pass(p, WEIGHT_GRAD, x, dy, [du], PLAIN, plan).steps()


class _Pass:
    """A forward pass or a gradient on its way to steps.

    Between two transforms of tiles the products of all positions: gather, products, scatter, the latter two for each
    block of output channels; for the weights' gradient two gathers, then products. By positions all threads share V and
    M. By tiles they lie in each thread's scratch, and where V is read once, `in_place`: the products of a position take
    the place of the position before, whose V nobody needs any more.
    """

    def __init__(
        self, p: Problem, way: str, first: View, second: View, weights: Sequence[Reference], epilogue: Epilogue,
        plan: Plan | None, keep: Keep | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.way, self.first, self.second = p, way, first, second
        self.counts, self.plan = Counts.of(p, way), plan or planned(p, way)
        self.by_tiles = self.plan.path == "tiles"
        if self.by_tiles and way != FORWARD:
            raise ValueError(f'plan: by "tiles"; accepted by {way} is "positions"')
        self.parts = p.parts if way == FORWARD else (p,)
        once = len(self.parts) == 1 and self.plan.panels >= p.machine.panels(self.counts.vectors_out)
        self.in_place = self.by_tiles and once
        self.sums = self._sums(keep) if keep else None
        self.source, self.targets = _sides(self, epilogue.function)
        v_bytes, m_bytes = (whole_lines(max(side.bytes for side in s)) for s in ([self.source], self.targets))
        self.v_at, self.m_at = (self.source.plane, 0) if self.in_place else (0, v_bytes)
        self.domain = max(self.v_at + v_bytes, self.m_at + m_bytes)
        each = whole_lines(max(side.scratch for side in (self.source, *self.targets)))
        self.each, self.shared = (each + self.domain, 0) if self.by_tiles else (each, self.domain)
        v, m = (0, 0) if self.by_tiles else (symbolic(Section.SHARED, at) for at in (self.v_at, self.m_at))
        self.gather = self.source.job.but(**_data(first), domain=v)
        self.seconds = [
            side.job.but(**self._target(side, part, epilogue), domain=m)
            for side, part in zip(self.targets, self.parts, strict=True)
        ]
        products = _gradient_products(self) if way == WEIGHT_GRAD else _products(self)
        self.products = [
            made.but(weights=u, v=v, m=m, v_table=_planes(self, part))
            for made, part, u in zip(products, self.parts, weights, strict=True)
        ]

    def steps(self) -> Steps:
        """The steps of this pass, in order."""
        made = self._by_tiles() if self.by_tiles else self._by_positions()
        return Steps(made, self.shared, {"path": self.plan.path}, self.sums)

    def _sums(self, keep: Keep) -> Sums | None:
        """Where the sums of outputs come, in whole vectors, which blocks of channels must have."""
        p, vectors = self.problem, self.counts.vectors_out
        alone = len(self.parts) == 1 or all(part.cout % p.machine.lanes(p.element) == 0 for part in self.parts)
        if not (self.by_tiles and alone and p.kind == p.element == "float32"):
            return None
        sums = Sums(0, whole_lines(vectors * p.machine.vector_bytes), self.plan.tiles, self.counts.sample_tiles)
        return sums._replace(address=keep(sums.size(p.batch)))

    def _by_tiles(self) -> tuple[Step, ...]:
        turns = job(
            records.Tiles,
            gather=[self.gather],
            parts=len(self.products),
            products=self.products,
            scatter=self.seconds,
            all_tiles=self.counts.tiles,
            tiles=self.plan.tiles,
            panels=self.plan.panels,
            v_at=self.v_at,
            m_at=self.m_at,
            scratch_at=self.domain,
            zero_bytes=self.targets[0].spare,
        )
        return (self._step("tiles", turns, ceil(self.counts.tiles / self.plan.tiles)),)

    def _by_positions(self) -> tuple[Step, ...]:
        spare, steps = self.targets[0].spare, list[Step]()
        if spare > 0 and self.way != WEIGHT_GRAD:
            cleared = job(Clear, data=symbolic(Section.SHARED, self.m_at), size=spare)
            steps.append(Step(clear_item(), cleared, 1))
        for base in range(0, self.counts.tiles, self.plan.tiles):
            steps += self._some_tiles(base, min(self.plan.tiles, self.counts.tiles - base))
        return tuple(steps)

    def _some_tiles(self, base: int, tiles: int) -> list[Step]:
        """The steps of tiles base..base + tiles: transforms of both sides and products, part by part."""
        steps, gradient = [self._transform(self.gather, base, tiles)], self.way == WEIGHT_GRAD
        for second, products in zip(self.seconds, self.products, strict=True):
            transform = self._transform(second, base, tiles, whole=self.way == INPUT_GRAD)
            made = products.but(tiles=tiles, add=gradient and base > 0)
            record: Any = made.record
            multiply = self._step("products", made, record.positions * ceil(record.panels / record.split))
            steps += [transform, multiply] if gradient else [multiply, transform]
        return steps

    def _transform(self, side: Job, base: int, tiles: int, *, whole: bool = False) -> Step:
        """A side's tiles base..base + tiles, in runs of a grid row; `whole` shares out samples and channels only."""
        counts = self.counts
        record: Any = side.record
        sample = counts.sample_tiles if tiles % counts.sample_tiles == 0 and base % counts.sample_tiles == 0 else tiles
        run = sample if whole else min(counts.row_tiles, tiles)
        items = ceil(tiles / run) * ceil(record.vectors / record.split)
        return self._step("transform", side.but(base=base, tiles=tiles, run=run), items)

    def _step(self, name: str, made: Job, items: int) -> Step:
        return Step(library.work_item(name), made, items, self.each)

    def _target(self, side: Side, part: Problem, epilogue: Epilogue) -> dict[str, Reference]:
        """The fields of a second side: its channels of the second activations, and of the epilogue."""
        at = part.first * BYTES[self.problem.kind]
        record: Any = side.job.record
        count = record.vectors * self.problem.machine.lanes(self.problem.element)
        return {
            **_data(self.second._replace(address=self.second.address + at)),
            **epilogue.some(part.first, part.cout, side.recipe.result).fields(count, side.recipe.result),
            "residual": epilogue.residual.address + at if epilogue.residual else 0,
            "tiles": self.plan.tiles,
            **({"sums": self.sums.address + at, "sums_line": self.sums.line} if self.sums else {}),
        }


def _data(view: View) -> dict[str, int]:
    names = ("data", "stride_n", "stride_d", "stride_h", "stride_w")
    return dict(zip(names, (view.address, *view.strides), strict=True))


def _sides(of: _Pass, function: str) -> tuple[Side, list[Side]]:
    p, plan, vectors_in, vectors_out = of.problem, of.plan, of.counts.vectors_in, of.counts.vectors_out
    tables, pixel, second = (
        ("A", "B") if of.way == INPUT_GRAD else ("B", "A"),
        of.first.strides[3],
        of.second.strides[3],
    )
    if len(of.parts) > 1:  # planes of one size, so that all blocks find their zeros at one place
        vectors_out = max(p.machine.vectors_of(part.cout, p.element) for part in of.parts)
    if of.by_tiles:
        vectors_out = min(vectors_out, plan.panels * p.machine.vectors)
    line = p.machine.vector_bytes
    v_plane, m_plane = (plane_bytes(plan.tiles, plan.rows, vectors, line) for vectors in (vectors_in, vectors_out))
    if of.in_place:
        v_plane = m_plane = max(v_plane, m_plane)
    first = Side(p, "gather", tables[0], plan, vectors_in, plan.gather_vectors, pixel=pixel, plane=v_plane)
    if of.way == WEIGHT_GRAD:
        split = plan.scatter_vectors
        return first, [Side(p, "gather", tables[1], plan, vectors_out, split, pixel=second, plane=m_plane)]
    backward, lanes = of.way == INPUT_GRAD, p.machine.lanes(p.element)
    whole = p.aligned and not backward and all(part.cout % lanes == 0 for part in of.parts)
    options: dict[str, Any] = {"pixel": second, "plane": m_plane, "accumulate": backward, "function": function}
    options |= {"streamed": plan.streamed and whole and not of.sums}
    split = vectors_out if of.by_tiles else plan.scatter_vectors
    return first, [Side(q, "scatter", tables[1], plan, vectors_out, split, **options) for q in of.parts]


def _planes(of: _Pass, p: Problem) -> npt.NDArray[np.int64]:
    """The offsets in bytes, [K] of part `p`, at which its positions lie in V, which holds those of all parts."""
    if p.kept == of.problem.kept:
        return of.source.planes
    there = range(Tile.parse(p.tile).positions) if of.problem.kept is None else of.problem.kept
    return of.source.planes[np.searchsorted(there, p.kept or ())]


def _products(of: _Pass) -> list[Job]:
    """The products job of each part, without the addresses of weights, V and M."""
    made, sums = [], of.counts.terms
    for p, target in zip(of.parts, of.targets, strict=True):
        vectors = of.counts.vectors_out if len(of.parts) == 1 else p.machine.vectors_of(p.cout, p.element)
        line, rows, machine = p.machine.vector_bytes, of.plan.rows, p.machine.with_rows(of.plan.rows)
        alone = not of.by_tiles and min(of.plan.tiles, of.counts.tiles) <= rows
        made.append(
            job(
                records.Products,
                v_panel=of.counts.vectors_in * rows * line,
                m_table=target.planes,
                m_panel=target.panel,
                m_vector=rows * line,
                weights_plane=sums * vectors * line,
                weights_panel=sums * machine.vectors * line,
                terms=sums,
                panels=machine.panels(vectors),
                split=of.plan.panels,
                vectors=vectors,
                panel_vectors=machine.vectors,
                positions=p.columns,
                kernel=library.products(machine, p.element, alone=alone),
            )
        )
    return made


def _gradient_products(of: _Pass) -> list[Job]:
    p, counts = of.problem, of.counts
    line, padded = p.machine.vector_bytes, counts.vectors_in * p.machine.lanes(p.element)
    made = job(
        records.Products,
        v_panel=counts.vectors_in * of.plan.rows * line,
        m_table=of.targets[0].planes,
        m_panel=counts.vectors_out * of.plan.rows * line,
        weights_plane=padded * counts.vectors_out * line,
        panels=gradient_panels(p, counts),
        split=of.plan.panels,
        vectors=counts.vectors_out,
        panel_vectors=1,
        positions=p.columns,
        kernel=library.weight_grad(p.machine.with_rows(of.plan.rows), p.element),
    )
    return [made]
