"""Winograd convolution and its gradients on raw buffers: the plan, the records, the parallel regions.

One contraction, three sets of free indices, as in `lrw_kernels.reference.conv`; activations [N, D, H, W, C] with
contiguous channels, of any of the kinds in `vector.BYTES`, transformed weights in panels (`layout.pack`).
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen import threads
from lrw_kernels.codegen.arena import ARENA
from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import BYTES, LINE
from lrw_kernels.codegen.records import Record, Region, row
from lrw_kernels.cpu import library, records
from lrw_kernels.cpu.plan import Plan, Size, lane_count, panel_count, plan, with_rows
from lrw_kernels.cpu.problem import NOTHING, Activations, Epilogue, Part, Problem
from lrw_kernels.cpu.side import Side
from lrw_kernels.winograd import Tile

FORWARD, INPUT_GRAD, WEIGHT_GRAD = "forward", "input_grad", "weight_grad"
Place = Callable[[Kernel], int]


def here(kernel: Kernel) -> int:
    """A kernel's address in this process."""
    return kernel.address


def forward(
    p: Problem, x: Activations, weights: int | Sequence[int], y: Activations, epilogue: Epilogue = NOTHING
) -> None:
    """Y [N, D', H', W', Cout] of x and U in panels; of a problem in blocks the address of each block's."""
    prepared(p, FORWARD).run(x, y, (weights,) if isinstance(weights, int) else weights, epilogue)


def input_grad(p: Problem, dy: Activations, weights: int, dx: Activations) -> None:
    """dX, added to what dx holds, of dY and U^T in panels."""
    prepared(p, INPUT_GRAD).run(dy, dx, (weights,))


def weight_grad(p: Problem, x: Activations, dy: Activations, du: int) -> None:
    """dU [K, rows, columns]; rows and columns padded to whole vectors."""
    prepared(p, WEIGHT_GRAD).run(x, dy, (du,))


def prepared(p: Problem, way: str) -> "Pass":
    """The pass of a problem, one object for all calls."""
    passes = p.passes
    if way not in passes:
        passes[way] = Pass(p, way)
    return passes[way]


class Pass:
    """A forward pass or a gradient with everything settled but the addresses of its buffers.

    Between two transforms of tiles the products of all positions: gather, products, scatter, the latter two for each
    block of output channels; for the weights' gradient two gathers, then products. Any number of threads may run one
    pass at once. `place` gives kernels their addresses.
    """

    def __init__(self, p: Problem, way: str, place: Place = here) -> None:
        self.problem, self.way, self.place = p, way, place
        steps, outputs = (p.cout, p.cin) if way == INPUT_GRAD else (p.cin, p.cout)
        self.size = _size(p, steps, outputs)
        self.plan = _plan(self.size, p, way)
        self.by_tiles = self.plan.path == "blocks"
        self.parts = p.parts if way == FORWARD else (Part(p, 0),)
        self.source, self.targets = _sides(self)
        added = self.targets[0].recipe.result
        self.offsets = [(part.first * BYTES[p.kind], part.first * BYTES[added]) for part in self.parts]
        self.v_tables = [_planes(self, part.problem) for part in self.parts]
        if way == WEIGHT_GRAD:
            self.products = [_gradient_products(self)]
        else:
            self.products = [_products(self, index, steps) for index in range(len(self.parts))]
        self.zeros = np.zeros((self.size.vectors_out + 1) * p.machine.lanes(p.element), added)
        self.no_bias = self.zeros.ctypes.data
        self.v_bytes, self.m_bytes = (_round(max(side.bytes for side in s)) for s in ([self.source], self.targets))
        scratch = max(side.scratch for side in (self.source, *self.targets))
        domain, each = self.v_bytes + self.m_bytes, _round(scratch)
        self.each = each + domain if self.by_tiles else each
        self.scratch = self.each * p.threads + (0 if self.by_tiles else domain)
        self._idle: deque[Job] = deque()

    def run(
        self, first: Activations, second: Activations, weights: Sequence[int], epilogue: Epilogue = NOTHING
    ) -> None:
        """Compute, on buffers that are this problem's: from `first` to `second`, or `weights` from both.

        `weights` has an address for each of `parts`.
        """
        try:
            job = self._idle.pop()
        except IndexError:
            job = Job(self)
        memory = ARENA.take(self.scratch)
        try:
            job.point(first, second, weights, epilogue, memory.address)
            for region in job.regions:
                threads.start(region, self.problem.threads)
        finally:
            ARENA.give_back(memory)
        self._idle.append(job)


class Job:
    """The records of a pass, filled in but for addresses, and its parallel regions in order; for one run at a time."""

    def __init__(self, owner: Pass) -> None:
        self._owner = owner
        self.regions: list[Region] = []
        self._firsts: list[Any] = []
        self._seconds: list[tuple[Any, ...]] = []  # by part
        self._products: list[tuple[Any, ...]] = []
        self._tile_blocks, self._clear = records.Blocks(), records.Clear()
        if owner.by_tiles:
            self._add_tile_blocks()
        else:
            self._add_clear()
            for base in range(0, owner.size.tiles, owner.plan.tiles):
                self._add_positions(base, min(owner.plan.tiles, owner.size.tiles - base))

    def point(
        self, first: Activations, second: Activations, weights: Sequence[int], epilogue: Epilogue, scratch: int
    ) -> None:
        """Fill in the addresses."""
        owner = self._owner
        v = scratch + owner.each * owner.problem.threads
        m, bias = v + owner.v_bytes, epilogue.bias or owner.no_bias
        for record in self._firsts:
            record.data, record.domain = first.address, v
            record.stride_n, record.stride_d, record.stride_h, record.stride_w = first.strides
        for of_parts in self._seconds:
            for record, (at, bias_at) in zip(of_parts, owner.offsets, strict=True):
                record.data, record.domain = second.address + at, m
                record.stride_n, record.stride_d, record.stride_h, record.stride_w = second.strides
                record.bias, record.relu = bias + bias_at, epilogue.relu
                record.residual = epilogue.residual + at if epilogue.residual else 0
        for of_parts in self._products:
            for record, address in zip(of_parts, weights, strict=True):
                record.weights, record.v, record.m = address, v, m
        for region in self.regions:
            region.scratch = scratch
        self._clear.data = m

    @property
    def rows(self) -> list[Sequence[Record]]:
        """All records but the regions, in rows that lie one after the other."""
        rows: list[Sequence[Record]] = [[first] for first in self._firsts]
        return [*rows, *self._seconds, *self._products, [self._tile_blocks], [self._clear]]

    def _add_tile_blocks(self) -> None:
        owner, job = self._owner, self._tile_blocks
        gather, scatters, products = self._copies()
        job.gather, job.groups = gather.address, len(products)
        job.products, job.scatter = products[0].address, scatters[0].address
        job.all_tiles, job.tiles, job.panels = owner.size.tiles, owner.plan.tiles, owner.plan.panels
        job.m_at, job.scratch_at = owner.v_bytes, owner.v_bytes + owner.m_bytes
        job.zero_at, job.zero_bytes = owner.v_bytes, owner.targets[0].spare
        self._add_region("blocks", job, ceil(owner.size.tiles / owner.plan.tiles))

    def _add_clear(self) -> None:
        size = self._owner.targets[0].spare
        if size > 0 and self._owner.way != WEIGHT_GRAD:
            self._clear.size = size
            self._add_region("clear", self._clear, 1)

    def _add_positions(self, base: int, tiles: int) -> None:
        owner = self._owner
        first, seconds, all_products = self._copies()
        self._add_transform(first, base, tiles)
        for second, products in zip(seconds, all_products, strict=True):
            products.tiles, products.add = tiles, base > 0 and owner.way == WEIGHT_GRAD
            if owner.way == WEIGHT_GRAD:
                self._add_transform(second, base, tiles)
            self._add_region("products", products, products.positions * ceil(products.panels / products.split))
            if owner.way != WEIGHT_GRAD:
                self._add_transform(second, base, tiles, whole=owner.way == INPUT_GRAD)

    def _copies(self) -> tuple[Any, tuple[Any, ...], tuple[Any, ...]]:
        """Records of the first side, and of each part's second side and products, these one after the other."""
        owner = self._owner
        first = owner.source.record.copy()
        seconds = row([side.record for side in owner.targets])
        products = row(owner.products)
        self._firsts.append(first)
        self._seconds.append(seconds)
        self._products.append(products)
        return first, seconds, products

    def _add_transform(self, record: Any, base: int, tiles: int, *, whole: bool = False) -> None:
        """A side's tiles base..base + tiles, in runs of a grid row; `whole` shares out samples and channels only."""
        size = self._owner.size
        sample = size.sample_tiles if tiles % size.sample_tiles == 0 and base % size.sample_tiles == 0 else tiles
        run = sample if whole else min(size.row_tiles, tiles)
        record.base, record.tiles, record.run = base, tiles, run
        self._add_region("transform", record, ceil(tiles / run) * ceil(record.vectors / record.split))

    def _add_region(self, name: str, job: Record, items: int) -> None:
        owner = self._owner
        kernel = owner.place(library.work_range(name))
        region = Region(kernel=kernel, job=job.address, items=items, chunk=1)
        region.scratch_bytes, region.workers = owner.each, owner.problem.threads
        self.regions.append(region)


def _plan(size: Size, p: Problem, way: str) -> Plan:
    chosen = plan(size, p.machine, blocks=way == FORWARD, most=p.most_scratch)
    if way != INPUT_GRAD:
        return chosen
    # Patches of the gradient overlap: they are shared out by samples and channels alone.
    return replace(chosen, scatter_vectors=min(chosen.scatter_vectors, ceil(size.vectors_out / p.threads)))


def _sides(owner: Pass) -> tuple[Side, list[Side]]:
    p, plan, vectors_in, vectors_out = owner.problem, owner.plan, owner.size.vectors_in, owner.size.vectors_out
    tables = ("A", "B") if owner.way == INPUT_GRAD else ("B", "A")
    pixel_in = BYTES[p.kind] * (p.pixels[0] if p.pixels else 0)
    first = Side(p, "gather", tables[0], plan, vectors_in, plan.gather_vectors, owner.place, pixel=pixel_in)
    if owner.way == WEIGHT_GRAD:
        return first, [Side(p, "gather", tables[1], plan, vectors_out, plan.scatter_vectors, owner.place)]
    backward, lanes = owner.way == INPUT_GRAD, p.machine.lanes(p.element)
    pixel = BYTES[p.kind] * (p.pixels[1] if p.pixels else p.cout)
    large = p.batch * prod(p.output_size) * pixel > p.machine.l3 * 3 // 4
    whole = p.pixels is None and all(part.problem.cout % lanes == 0 for part in owner.parts)
    streamed = large and whole and not backward
    if len(owner.parts) > 1:  # planes of one size, so that all blocks find their zeros at one place
        vectors_out = max(lane_count(part.problem.cout, p.machine, p.element) for part in owner.parts)
    if owner.by_tiles:
        vectors_out = min(vectors_out, plan.panels * p.machine.vectors)
    options = {"pixel": 0 if backward else pixel, "accumulate": backward, "streamed": streamed}
    parts = [part.problem for part in owner.parts]
    split = plan.scatter_vectors
    return first, [Side(q, "scatter", tables[1], plan, vectors_out, split, owner.place, **options) for q in parts]


def _planes(owner: Pass, p: Problem) -> npt.NDArray[np.int64]:
    """Where the positions a part keeps lie in V, which has those of all parts."""
    if p.kept == owner.problem.kept:
        return owner.source.planes
    there = range(Tile.parse(p.tile).positions) if owner.problem.kept is None else owner.problem.kept
    return owner.source.planes[np.searchsorted(there, p.kept or ())]


def _products(owner: Pass, index: int, steps: int) -> records.Products:
    p, target = owner.parts[index].problem, owner.targets[index]
    vectors = owner.size.vectors_out if len(owner.parts) == 1 else lane_count(p.cout, p.machine, p.element)
    line, rows, machine = p.machine.vector_bytes, owner.plan.rows, with_rows(p.machine, owner.plan.rows)
    return records.Products(
        v_table=owner.v_tables[index].ctypes.data,
        v_panel=owner.size.vectors_in * rows * line,
        m_table=target.planes.ctypes.data,
        m_panel=target.record.panel,
        m_vector=rows * line,
        weights_plane=steps * vectors * line,
        weights_panel=steps * machine.vectors * line,
        steps=steps,
        panels=panel_count(vectors, machine),
        split=owner.plan.products_panels,
        vectors=vectors,
        panel_vectors=machine.vectors,
        positions=p.columns,
        kernel=owner.place(library.products(machine, p.element)),
    )


def _gradient_products(owner: Pass) -> records.Products:
    p, size = owner.problem, owner.size
    line, rows = p.machine.vector_bytes, min(8, p.machine.lanes(p.element))
    padded = size.vectors_in * p.machine.lanes(p.element)
    return records.Products(
        v_table=owner.v_tables[0].ctypes.data,
        v_panel=size.vectors_in * owner.plan.rows * line,
        m_table=owner.targets[0].planes.ctypes.data,
        m_panel=size.vectors_out * owner.plan.rows * line,
        weights_plane=padded * size.vectors_out * line,
        panels=padded // rows,
        split=ceil(padded / rows / ceil(8 * p.threads / p.columns)),
        vectors=size.vectors_out,
        panel_vectors=1,
        positions=p.columns,
        kernel=owner.place(library.weight_grad(with_rows(p.machine, owner.plan.rows), p.element)),
    )


def _size(p: Problem, steps: int, outputs: int) -> Size:
    grid = Tile.parse(p.tile).grid(p.output_size)
    sums, results = (lane_count(channels, p.machine, p.element) for channels in (steps, outputs))
    tiles = prod(grid)
    return Size(p.columns, p.batch * tiles, tiles, grid[2], sums, results, steps, p.machine.vector_bytes, p.threads)


def _round(size: int) -> int:
    return -(-size // LINE) * LINE
