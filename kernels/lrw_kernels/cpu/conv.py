"""Winograd convolution and its gradients on raw buffers: the plan, the records, the parallel regions.

One contraction, three sets of free indices, as in `lrw_kernels.reference.conv`; activations [N, D, H, W, C] with
contiguous channels, of any of the kinds in `vector.BYTES`, transformed weights in panels (`layout.pack`).
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import ceil, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.cpu import library, records, threads
from lrw_kernels.cpu.arena import ARENA, Memory
from lrw_kernels.cpu.machine import LINE, Machine
from lrw_kernels.cpu.plan import Plan, Size, lane_count, panel_count, plan, plane_bytes, with_rows
from lrw_kernels.cpu.program import Program
from lrw_kernels.cpu.vector import BYTES
from lrw_kernels.winograd import Tile, kept_positions
from lrw_kernels.winograd.tile import Triple


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer on activations of one size. `kind` is their dtype, `element` that of the arithmetic and the weights;
    `fixed` says that the kept set will not change, so that code for just this set pays."""

    tile: str
    padding: Triple
    kept: tuple[int, ...] | None
    fixed: bool
    batch: int
    input_size: Triple
    cin: int
    cout: int
    kind: str
    element: str
    machine: Machine
    threads: int

    @cached_property
    def columns(self) -> int:
        """K."""
        return Tile.parse(self.tile).positions if self.kept is None else len(self.kept)

    @cached_property
    def output_size(self) -> Triple:
        """Of the layer."""
        return Tile.parse(self.tile).output_size(self.input_size, self.padding)

    @cached_property
    def weight_bytes(self) -> int:
        """Of U in panels, for the forward pass."""
        return self._panel_bytes(self.cin, self.cout)

    @cached_property
    def adjoint_weight_bytes(self) -> int:
        """Of U^T in panels, for the gradient with respect to the input."""
        return self._panel_bytes(self.cout, self.cin)

    @cached_property
    def forward(self) -> "Convolution":
        """Prepared on first use."""
        return Convolution(self, "forward")

    @cached_property
    def input_grad(self) -> "Convolution":
        """Prepared on first use."""
        return Convolution(self, "input_grad")

    @cached_property
    def weight_grad(self) -> "WeightGradient":
        """Prepared on first use."""
        return WeightGradient(self)

    def _panel_bytes(self, steps: int, outputs: int) -> int:
        return self.columns * steps * lane_count(outputs, self.machine, self.element) * self.machine.vector_bytes


@dataclass(frozen=True)
class Activations:
    """A buffer [N, D, H, W, C] with contiguous channels: its address and the strides of N, D, H and W in bytes."""

    address: int
    strides: tuple[int, int, int, int]


@dataclass(frozen=True)
class Epilogue:
    """What an output transform adds: bias (padded to whole vectors) and a residual laid out as y; then ReLU."""

    bias: int = 0
    residual: int = 0
    relu: bool = False


@lru_cache(maxsize=1024)
def problem(
    tile: str,
    padding: Triple,
    kept: tuple[int, ...] | None,
    fixed: bool,
    batch: int,
    input_size: Triple,
    channels: tuple[int, int],
    kind: str,
    machine: Machine,
    threads: int,
) -> Problem:
    """The problem of these values, one object for all calls; `channels` are (Cin, Cout)."""
    element = "float64" if kind == "float64" else "float32"
    return Problem(tile, padding, kept, fixed, batch, input_size, *channels, kind, element, machine, threads)


def forward(p: Problem, x: Activations, weights: int, y: Activations, epilogue: Epilogue | None = None) -> None:
    """Y [N, D', H', W', Cout] of x and U in panels."""
    p.forward.run(x, weights, y, epilogue or Epilogue())


def input_grad(p: Problem, dy: Activations, weights: int, dx: Activations) -> None:
    """dX, added to what dx holds, of dY and U^T in panels."""
    p.input_grad.run(dy, weights, dx, Epilogue())


def weight_grad(p: Problem, x: Activations, dy: Activations, du: int) -> None:
    """dU [K, rows, columns]; rows and columns padded to whole vectors."""
    p.weight_grad.run(x, dy, du)


class _Side:
    """One transform of a problem: its record, offsets of positions and scratch."""

    def __init__(self, p: Problem, way: str, table: str, plan: Plan, vectors: int, split: int, **options: Any) -> None:
        tile, of_input = Tile.parse(p.tile), table == "B"
        channels, size = (p.cin, p.input_size) if of_input else (p.cout, p.output_size)
        start = tile.starts(p.padding) if of_input else tile.starts()
        kept = p.kept if p.fixed else None
        lanes = p.machine.lanes(p.element)
        adders = p.machine.spare_adders
        self.program = Program(way, table, p.tile, p.element, lanes, p.kind, kept, spare_adders=adders, **options)
        self.plane = plane_bytes(plan.tiles, plan.rows, vectors, p.machine.vector_bytes)
        # Positions that are not kept share one more plane: where gathers drop theirs, and of zeros for scatters.
        self.spare = p.kept is not None and not p.fixed
        self.bytes = self.plane * (p.columns + self.spare)
        self.spare_at = self.plane * p.columns
        self.table = self._offsets(p, tile)
        pixel = channels * BYTES[p.kind]
        self._outside = Memory.of(max(LINE, self.program.patch[2] * (pixel + p.machine.vector_bytes)))
        self.scratch = self.program.scratch_bytes(split) + self._outside.size
        grid = tile.grid(p.output_size)
        self.record = records.Side()
        self.record.set(
            **_axes("size", size),
            **_axes("grid", grid),
            **_axes("start", start),
            **_axes("step", tile.outputs),
            channels=channels,
            vectors=lane_count(channels, p.machine, p.element),
            split=split,
            shift=plan.rows * p.machine.vector_bytes if way == "scatter" else 0,
            rows=plan.rows,
            panel=vectors * plan.rows * p.machine.vector_bytes,
            table=self.table.ctypes.data,
            zeros=self._outside.address,
            kernel=library.transform(self.program),
        )

    def _offsets(self, p: Problem, tile: Tile) -> npt.NDArray[np.int64]:
        if p.kept is None or p.fixed:
            return np.arange(p.columns, dtype=np.int64) * self.plane
        table = np.full(tile.positions, self.spare_at, np.int64)
        table[list(kept_positions(p.kept, tile))] = np.arange(p.columns) * self.plane
        return table

    def of(self, data: Activations, epilogue: Epilogue | None = None) -> Any:
        """The record for this call."""
        record = self.record.copy()
        record.data = data.address
        record.stride_n, record.stride_d, record.stride_h, record.stride_w = data.strides
        if epilogue is not None:
            record.bias, record.residual, record.relu = epilogue.bias, epilogue.residual, epilogue.relu
        return record


class Convolution:
    """A forward pass or the gradient with respect to the input, prepared: transform, products, transform."""

    def __init__(self, p: Problem, way: str) -> None:
        self.problem, backward = p, way == "input_grad"
        steps, outputs = (p.cout, p.cin) if backward else (p.cin, p.cout)
        self.size = _size(p, steps, outputs)
        # Patches of the gradient overlap: blocks on several threads would write to the same places.
        self.plan = plan(self.size, p.machine, blocks=not backward)
        if backward:  # so they are shared out by samples and channels alone
            self.plan = replace(
                self.plan, scatter_vectors=min(self.plan.scatter_vectors, ceil(self.size.vectors_out / p.threads))
            )
        self.machine = with_rows(p.machine, self.plan.rows)
        pixels = p.batch * prod(p.output_size) * p.cout * BYTES[p.kind]
        streamed = not backward and pixels > p.machine.l3 * 3 // 4 and p.cout % p.machine.lanes(p.element) == 0
        blocks = self.plan.path == "blocks"
        out_vectors = (
            min(self.size.vectors_out, self.plan.panels * p.machine.vectors) if blocks else self.size.vectors_out
        )
        tables = ("A", "B") if backward else ("B", "A")
        arguments = (p, "gather", tables[0], self.plan, self.size.vectors_in, self.plan.gather_vectors)
        self.gather = _Side(*arguments)
        self.scatter = _Side(
            p,
            "scatter",
            tables[1],
            self.plan,
            out_vectors,
            self.plan.scatter_vectors,
            accumulate=backward,
            streamed=streamed,
        )
        self.no_bias = np.zeros(self.size.vectors_out * p.machine.lanes(p.element), p.element)
        self.products = _products_record(self, steps)
        self.kernel = library.work_range("blocks" if blocks else "products")
        self.v_bytes, self.m_bytes = _round(self.gather.bytes), _round(self.scatter.bytes)
        each = _round(max(self.gather.scratch, self.scatter.scratch))
        self.each = each + self.v_bytes + self.m_bytes if blocks else each
        self.scratch = self.each * p.threads + (0 if blocks else self.v_bytes + self.m_bytes)

    def run(self, source: Activations, weights: int, target: Activations, epilogue: Epilogue) -> None:
        """Compute, on buffers that are this problem's."""
        if epilogue.bias == 0:
            epilogue = Epilogue(self.no_bias.ctypes.data, epilogue.residual, epilogue.relu)
        gather, scatter, products = self.gather.of(source), self.scatter.of(target, epilogue), self.products.copy()
        products.weights = weights
        with ARENA.borrow(self.scratch) as memory:
            run = self._run_blocks if self.plan.path == "blocks" else self._run_positions
            run(gather, products, scatter, memory.address)

    def _run_blocks(self, gather: Any, products: Any, scatter: Any, scratch: int) -> None:
        job = records.Blocks()
        job.gather, job.products, job.scatter = gather.address, products.address, scatter.address
        job.all_tiles, job.tiles, job.panels = self.size.tiles, self.plan.tiles, self.plan.panels
        job.m_at, job.scratch_at = self.v_bytes, self.v_bytes + self.m_bytes
        if self.scatter.spare:
            job.zero_at, job.zero_bytes = self.v_bytes + self.scatter.spare_at, self.scatter.plane
        items = ceil(self.size.tiles / self.plan.tiles)
        threads.run(self.kernel, job.address, items, 1, scratch, self.each, self.problem.threads)

    def _run_positions(self, gather: Any, products: Any, scatter: Any, scratch: int) -> None:
        workers, each = self.problem.threads, self.each
        v = scratch + each * workers
        m = v + self.v_bytes
        if self.scatter.spare:
            ctypes.memset(m + self.scatter.spare_at, 0, self.scatter.plane)
        gather.domain = products.v = v
        scatter.domain = products.m = m
        items = products.positions * ceil(products.panels / products.split)
        overlapping = self.scatter.program.accumulate
        for base in range(0, self.size.tiles, self.plan.tiles):
            products.tiles = tiles = min(self.plan.tiles, self.size.tiles - base)
            _transform(gather, base, tiles, scratch, each, self.size, workers)
            threads.run(self.kernel, products.address, items, 1, scratch, each, workers)
            _transform(scatter, base, tiles, scratch, each, self.size, workers, whole=overlapping)


class WeightGradient:
    """The gradient with respect to U, prepared: two transforms, then V^T dM."""

    def __init__(self, p: Problem) -> None:
        self.problem, self.size = p, _size(p, p.cin, p.cout)
        self.plan = plan(self.size, p.machine, blocks=False)
        machine = with_rows(p.machine, self.plan.rows)
        arguments = ((p, "gather", "B", self.plan, self.size.vectors_in, self.plan.gather_vectors),
                     (p, "gather", "A", self.plan, self.size.vectors_out, self.plan.scatter_vectors))  # fmt: skip
        self.sides = [_Side(*side) for side in arguments]
        line, rows = p.machine.vector_bytes, min(8, p.machine.lanes(p.element))
        padded = self.size.vectors_in * p.machine.lanes(p.element)
        self.products = records.Products()
        self.products.set(
            v_plane=self.sides[0].plane,
            v_panel=self.size.vectors_in * self.plan.rows * line,
            m_plane=self.sides[1].plane,
            m_panel=self.size.vectors_out * self.plan.rows * line,
            weights_plane=padded * self.size.vectors_out * line,
            panels=padded // rows,
            split=ceil(padded / rows / ceil(8 * p.threads / p.columns)),
            vectors=self.size.vectors_out,
            panel_vectors=1,
            kernel=library.weight_grad(machine, p.element),
        )

    @property
    def scratch(self) -> int:
        """Bytes of scratch a call takes."""
        each = _round(max(side.scratch for side in self.sides))
        return sum(_round(side.bytes) for side in self.sides) + each * self.problem.threads

    def run(self, x: Activations, dy: Activations, du: int) -> None:
        """Compute, on buffers that are this problem's."""
        p, plan = self.problem, self.plan
        transforms, products = (
            [side.of(data) for side, data in zip(self.sides, (x, dy), strict=True)],
            self.products.copy(),
        )
        sizes, each = [_round(side.bytes) for side in self.sides], _round(max(side.scratch for side in self.sides))
        with ARENA.borrow(each * p.threads + sum(sizes)) as memory:
            v = memory.address + each * p.threads
            products.set(v=v, m=v + sizes[0], weights=du)
            for record, domain in zip(transforms, (v, v + sizes[0]), strict=True):
                record.set(domain=domain)
            for base in range(0, self.size.tiles, plan.tiles):
                tiles = min(plan.tiles, self.size.tiles - base)
                products.set(tiles=tiles, add=int(base > 0))
                for record in transforms:
                    _transform(record, base, tiles, memory.address, each, self.size, p.threads)
                items = p.columns * ceil(products.panels / products.split)
                kernel = library.work_range("products")
                threads.run(kernel, products.address, items, 1, memory.address, each, p.threads)


def _transform(
    record: Any,
    base: int,
    tiles: int,
    scratch: int,
    scratch_bytes: int,
    size: Size,
    workers: int,
    *,
    whole: bool = False,
) -> None:
    """A side's tiles base..base + tiles, in runs of a grid row; `whole` shares out samples and
    channels only."""
    sample = size.sample_tiles if tiles % size.sample_tiles == 0 and base % size.sample_tiles == 0 else tiles
    run = sample if whole else min(size.row_tiles, tiles)
    record.base, record.tiles, record.run = base, tiles, run
    items = ceil(tiles / run) * ceil(record.vectors / record.split)
    threads.run(library.work_range("transform"), record.address, items, 1, scratch, scratch_bytes, workers)


def _size(p: Problem, steps: int, outputs: int) -> Size:
    grid = Tile.parse(p.tile).grid(p.output_size)
    sums, results = (lane_count(channels, p.machine, p.element) for channels in (steps, outputs))
    tiles = prod(grid)
    return Size(p.columns, p.batch * tiles, tiles, grid[2], sums, results, steps, p.machine.vector_bytes, p.threads)


def _products_record(c: Convolution, steps: int) -> Any:
    line, rows, vectors = c.problem.machine.vector_bytes, c.plan.rows, c.size.vectors_out
    record = records.Products()
    record.set(
        v_plane=c.gather.plane,
        v_panel=c.size.vectors_in * rows * line,
        m_plane=c.scatter.plane,
        m_panel=c.scatter.record.panel,
        m_vector=rows * line,
        weights_plane=steps * vectors * line,
        weights_panel=steps * c.machine.vectors * line,
        steps=steps,
        panels=panel_count(vectors, c.machine),
        split=c.plan.products_panels,
        vectors=vectors,
        panel_vectors=c.machine.vectors,
        positions=c.problem.columns,
        kernel=library.products(c.machine, c.problem.element),
    )
    return record


def _axes(name: str, values: Sequence[int]) -> dict[str, int]:
    return {f"{name}_{axis}": value for axis, value in zip("dhw", values, strict=True)}


def _round(size: int) -> int:
    return -(-size // LINE) * LINE
