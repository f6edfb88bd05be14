"""How a pass is cut up on a machine: a plan, and the one that formulas give.

Two paths. `tiles`: a thread takes some tiles at a turn from input to output, V and M in its own cache; weights are read
once a turn; where all products of a position are formed at once, M takes the place of V. `positions`: all threads
transform, then share out the positions' products, then transform back; V and M pass through the shared cache, weights
are read once. Measured on both (bench/notes/cpu.md): tiles win where reading the weights again costs less than moving V
and M.
"""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace
from math import ceil, prod

from lrw_kernels.codegen.machine import BYTES, FLOAT, LINE, Machine
from lrw_kernels.cpu.micro import weight_grad_micro
from lrw_kernels.cpu.winograd.problem import FORWARD, INPUT_GRAD, MOST_SCRATCH, WEIGHT_GRAD, Problem
from lrw_kernels.winograd import Tile

# What formulas do not know and was measured, on two cores of Zen 4 and of an Intel Xeon (bench/notes/cpu.md).
TRANSFORM_VECTORS = 4  # of channels that a work item transforms: what a 256-byte piece of a pixel holds
TURN_PANELS = 8  # panels of weights between two output transforms of a turn
MOST_ROWS = 8  # panels of tiles in a turn
THREAD_ITEMS = 8  # work items of a thread at least: enough for threads that come late or leave early
LEAST_TURNS = 2  # of a thread: with fewer, threads wait
# What a turn costs, in multiply-adds of one core: a byte of V and M through the transforms; a byte of weights out of
# the last cache, or out of the second-level one where it holds V and M too; a byte of V and M that does not fit into
# the share of the second-level cache that weights on their way leave them.
TRANSFORMED, FAR, NEAR, SPILLED = 4.0, 1.5, 1.0, 9.0
DOMAIN_SHARE = 1 / 2
ALIKE = 1.03  # times the least cost: as good, and the smallest of these leaves most of the caches to others
READ_AGAIN = 2.5  # bytes of weights from a cache that cost what a byte of V or M does
WEIGHTS_SHARE = 1 / 2  # of the last cache: as much of it holds weights from turn to turn
STREAMED_SHARE = 3 / 4  # of the last cache: outputs that take more are not there any more for whoever reads them


@dataclass(frozen=True)
class Plan:
    """How the work of a pass is cut up; numbers from 1.

    By `path` "tiles" or "positions", V and M hold so many `tiles`, a panel of them `rows`; products go through
    `panels` of weights between two output transforms of a turn, or as a work item; by positions a work item transforms
    `gather_vectors` of channels, and `scatter_vectors` on the other side. `streamed`: outputs go past the caches where
    they can. Gradients go by positions. Raises ValueError for other values.
    """

    path: str
    tiles: int
    rows: int
    panels: int
    gather_vectors: int = 1
    scatter_vectors: int = 1
    streamed: bool = False

    def __post_init__(self) -> None:
        if self.path not in ("tiles", "positions") or min(astuple(self)[1:-1]) < 1:
            raise ValueError(f'plan: {self}; accepted are "tiles" or "positions", and integers from 1')


Planner = Callable[[Problem, str], Plan]
"""The plan of a problem's pass: "forward", "input_grad" or "weight_grad"."""


@dataclass(frozen=True)
class Counts:
    """What a plan depends on: counts of positions, of tiles (in all, of a sample, of a row), of vectors of channels in
    and out, of numbers along the sum (`terms`) and of threads; bytes of a vector (`line`); in how many `parts` output
    channels come."""

    positions: int
    tiles: int
    sample_tiles: int
    row_tiles: int  # along w
    vectors_in: int
    vectors_out: int
    terms: int
    line: int
    threads: int
    parts: int = 1

    @staticmethod
    def of(p: Problem, way: str) -> "Counts":
        """The counts of a pass of `p`."""
        sums, outputs = (p.cout, p.cin) if way == INPUT_GRAD else (p.cin, p.cout)
        grid = Tile.parse(p.tile).grid(p.output_size)
        vectors, results = (p.machine.vectors_of(channels, p.element) for channels in (sums, outputs))
        tiles, line = prod(grid), p.machine.vector_bytes
        sizes = p.columns, p.batch * tiles, tiles, grid[2], vectors, results, sums, line, p.threads
        return Counts(*sizes, len(p.parts) if way == FORWARD else 1)


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
    together = ceil(panels / ceil(panels / TURN_PANELS))
    rows, tiles = _turn(counts, min(counts.vectors_out, together * machine.vectors), machine, most)
    return Plan("tiles", tiles, rows, together)


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


def _turn(counts: Counts, group: int, machine: Machine, most: int) -> tuple[int, int]:
    """Rows of a panel and tiles of a turn that cost the busiest thread least; of those that cost about that, the fewest
    tiles. V and M of `group` vectors, of all threads, take `most` bytes, if they can."""
    once = group == counts.vectors_out and counts.parts == 1  # then M takes the place of V
    held = max(counts.vectors_in, group) if once else counts.vectors_in + group
    tile_bytes = counts.positions * counts.line * held
    tiles = min(counts.tiles // LEAST_TURNS, most // tile_bytes) // counts.threads
    heights = range(machine.rows, machine.rows // 2, -2)
    turns = [(rows, rows * n) for rows in heights for n in range(1, max(1, min(MOST_ROWS, tiles // rows)) + 1)]
    costs = [_cost(counts, rows, turn, turn * tile_bytes, machine) for rows, turn in turns]
    good = [turn for turn, cost in zip(turns, costs, strict=True) if cost <= ALIKE * min(costs)]
    return min(good, key=lambda turn: (turn[1], -turn[0]))


def _cost(counts: Counts, rows: int, tiles: int, held: int, machine: Machine) -> float:
    """What the busiest thread does with so many tiles a turn, whose V and M take `held` bytes, in multiply-adds. A term
    of a panel loads weights as often as it multiplies a row by them, which narrow cores (`by_element`) do not hide."""
    longest, line = _longest(counts.tiles, tiles, counts.threads), counts.positions * counts.line
    weights, transformed = line * counts.terms * counts.vectors_out, line * (counts.vectors_in + counts.vectors_out)
    spilled = max(0.0, held - DOMAIN_SHARE * machine.l2) / tiles
    read = NEAR if weights + held <= machine.l2 else FAR
    products = weights / FLOAT * (1 + 1 / rows if machine.by_element else 1)
    tile = products + TRANSFORMED * transformed + SPILLED * spilled
    return longest * tile + ceil(longest / tiles) * read * weights


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


def _shared_tiles(counts: Counts, rows: int, most_bytes: int) -> int:
    """Tiles at a time on the path by positions: as many each time, and V and M stay below `most_bytes`."""
    panel = counts.positions * rows * (counts.vectors_in + counts.vectors_out) * counts.line
    panels, most = ceil(counts.tiles / rows), max(1, most_bytes // panel)
    return ceil(panels / ceil(panels / most)) * rows
