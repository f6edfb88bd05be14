"""How a pass is cut up on a machine: a plan, and the one that formulas give.

Two paths. `tiles`: a thread takes some tiles at a turn from input to output, V and M in its own cache; weights are read
once a turn. `positions`: all threads transform, then share out the positions' products, then transform back; V and M
pass through the shared cache, weights are read once. Measured on both (bench/notes/cpu.md): tiles win where reading the
weights again costs less than moving V and M.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from math import ceil, prod

from lrw_kernels.codegen.machine import BYTES, LINE, Machine
from lrw_kernels.cpu.micro import weight_grad_micro
from lrw_kernels.cpu.winograd.problem import FORWARD, INPUT_GRAD, MOST_SCRATCH, WEIGHT_GRAD, Problem
from lrw_kernels.winograd import Tile

# What formulas do not know and was measured, on two cores of Zen 4 and of an Intel Xeon (bench/notes/cpu.md).
TRANSFORM_VECTORS = 4  # channels of a pixel that are transformed together: what a 256-byte piece of a pixel holds
TURN_PANELS = 8  # panels of weights between two output transforms of a turn
THREAD_ITEMS = 8  # work items of a thread at least: enough for threads that come late or leave early
THREAD_TURNS = 4  # turns of a thread at least, before they grow
LEAST_TURNS = 2  # of a thread: with fewer, threads wait
READ_AGAIN = 2.5  # bytes of weights from a cache that cost what a byte of V or M does
WEIGHTS_SHARE = 1 / 2  # of the last cache: as much of it holds weights from turn to turn
STREAMED_SHARE = 3 / 4  # of the last cache: outputs that take more are not there any more for whoever reads them
LOWER = 0.95  # of the busiest thread's tiles: a lower micro-kernel has to save more than that leaves


@dataclass(frozen=True)
class Plan:
    """How the work of a pass is cut up; numbers from 1.

    By `path` "tiles" or "positions", V and M hold so many `tiles`, a panel of them `rows`; products go through
    `panels` of weights between two output transforms of a turn, or as a work item; `gather_vectors` of channels are
    transformed together, and by positions `scatter_vectors` on the other side. `streamed`: outputs go past the caches
    where they can. Gradients go by positions. Raises ValueError for other values.
    """

    path: str
    tiles: int
    rows: int
    panels: int
    gather_vectors: int
    scatter_vectors: int
    streamed: bool = False

    def __post_init__(self) -> None:
        if self.path not in ("tiles", "positions") or min(astuple(self)[1:-1]) < 1:
            raise ValueError(f'plan: {self}; accepted are "tiles" or "positions", and integers from 1')


Planner = Callable[[Problem, str], Plan]
"""The plan of a problem's pass: "forward", "input_grad" or "weight_grad"."""


@dataclass(frozen=True)
class Counts:
    """What a plan depends on: counts of positions, of tiles (in all, of a sample, of a row), of vectors of channels in
    and out, of numbers along the sum (`terms`) and of threads; bytes of a vector (`line`)."""

    positions: int
    tiles: int
    sample_tiles: int
    row_tiles: int  # along w
    vectors_in: int
    vectors_out: int
    terms: int
    line: int
    threads: int

    @staticmethod
    def of(p: Problem, way: str) -> "Counts":
        """The counts of a pass of `p`."""
        sums, outputs = (p.cout, p.cin) if way == INPUT_GRAD else (p.cin, p.cout)
        grid = Tile.parse(p.tile).grid(p.output_size)
        vectors, results = (p.machine.vectors_of(channels, p.element) for channels in (sums, outputs))
        tiles, line = prod(grid), p.machine.vector_bytes
        return Counts(p.columns, p.batch * tiles, tiles, grid[2], vectors, results, sums, line, p.threads)


def planned(p: Problem, way: str) -> Plan:
    """The plan of formulas."""
    counts = Counts.of(p, way)
    if way == FORWARD:
        outputs = p.batch * prod(p.output_size) * p.cout * BYTES[p.kind]
        streamed = outputs > STREAMED_SHARE * p.machine.l3
        return replace(plan(counts, p.machine, most=p.most_scratch), streamed=streamed)
    if way == WEIGHT_GRAD:  # panels are rows of dU
        return by_positions(counts, p.machine, gradient_panels(p, counts), p.most_scratch)
    chosen = by_positions(counts, p.machine, p.machine.panels(counts.vectors_out), p.most_scratch)
    # Patches of the gradient overlap: they are shared out by samples and channels alone.
    return replace(chosen, scatter_vectors=min(chosen.scatter_vectors, ceil(counts.vectors_out / p.threads)))


def plan(counts: Counts, machine: Machine, *, most: int = MOST_SCRATCH) -> Plan:
    """The plan of a forward pass. V and M take `most` bytes, if they can."""
    panels = machine.panels(counts.vectors_out)
    if not _tiles_win(counts, _rows(counts.tiles, machine), machine, most):
        return by_positions(counts, machine, panels, most)
    rows = _balanced_rows(counts, machine)
    together = ceil(panels / ceil(panels / TURN_PANELS))
    group = min(counts.vectors_out, together * machine.vectors)
    tiles = _turn_tiles(counts, rows, group, machine)
    return Plan("tiles", tiles, rows, together, min(counts.vectors_in, TRANSFORM_VECTORS), group)


def by_positions(counts: Counts, machine: Machine, panels: int, most: int) -> Plan:
    """The plan by positions, whose products have so many `panels` of weights each."""
    rows = _rows(counts.tiles, machine)
    items = THREAD_ITEMS * counts.threads
    groups = min(panels, ceil(items / counts.positions))
    row_runs = ceil(counts.tiles / counts.row_tiles)
    gather, scatter = (
        max(1, min(TRANSFORM_VECTORS, vectors // ceil(items / row_runs)))
        for vectors in (counts.vectors_in, counts.vectors_out)
    )
    return Plan("positions", _shared_tiles(counts, rows, most), rows, ceil(panels / groups), gather, scatter)


def gradient_panels(p: Problem, counts: Counts) -> int:
    """How many panels of rows dU has: as many rows as its micro-kernel is high."""
    return counts.vectors_in * p.machine.lanes(p.element) // weight_grad_micro(p.machine, p.element, 1).rows[0]


def plane_bytes(tiles: int, rows: int, vectors: int, line: int) -> int:
    """Bytes from position to position of V or M: an odd number of cache lines, so that they spread over a cache."""
    lines = ceil(ceil(tiles / rows) * rows * vectors * line / LINE)
    return (lines + 1 - lines % 2) * LINE


def _rows(tiles: int, machine: Machine) -> int:
    """The micro-kernel's full height, or for few tiles an even one that divides them better."""
    panels = ceil(tiles / machine.rows)
    return machine.rows if panels > 2 else min(machine.rows, 2 * ceil(tiles / panels / 2))


def _balanced_rows(counts: Counts, machine: Machine) -> int:
    """An even height of the upper half that lets threads end together; the full one unless that saves enough."""
    heights = range(machine.rows, machine.rows // 2, -2)
    best = min(heights, key=lambda rows: _longest(counts.tiles, rows, counts.threads))
    saved = _longest(counts.tiles, best, counts.threads) < LOWER * _longest(counts.tiles, machine.rows, counts.threads)
    return best if saved else machine.rows


def _longest(tiles: int, rows: int, threads: int) -> int:
    """How many tiles the busiest thread gets, in turns of `rows` handed out one by one."""
    rounds, late = divmod(tiles // rows, threads)
    return rounds * rows + (rows if late else tiles % rows)


def _tiles_win(counts: Counts, rows: int, machine: Machine, most: int) -> bool:
    weights, turns = counts.positions * counts.terms * counts.vectors_out * counts.line, ceil(counts.tiles / rows)
    moved = 2 * counts.positions * counts.tiles * (counts.vectors_in + counts.vectors_out) * counts.line
    scratch = counts.threads * counts.positions * rows * (counts.vectors_in + counts.vectors_out) * counts.line
    if turns < LEAST_TURNS * counts.threads or scratch > most:
        return False
    return weights <= WEIGHTS_SHARE * machine.l3 and turns * weights <= READ_AGAIN * (moved + weights)


def _turn_tiles(counts: Counts, rows: int, group: int, machine: Machine) -> int:
    """Tiles of a turn: whole panels whose V and M fill the second-level cache, or fewer, so that all threads have
    turns."""
    panel = counts.positions * rows * (counts.vectors_in + group) * counts.line
    most = ceil(ceil(counts.tiles / rows) / (THREAD_TURNS * counts.threads))
    return rows * max(1, min(most, machine.l2 // panel))


def _shared_tiles(counts: Counts, rows: int, most_bytes: int) -> int:
    """Tiles at a time on the path by positions: as many each time, and V and M stay below `most_bytes`."""
    panel = counts.positions * rows * (counts.vectors_in + counts.vectors_out) * counts.line
    panels, most = ceil(counts.tiles / rows), max(1, most_bytes // panel)
    return ceil(panels / ceil(panels / most)) * rows
