"""How a layer is computed on a machine: path, blocks and micro-kernel, as a pure function of the problem.

Two paths. `blocks`: a thread takes a block of tiles from input to output, V and M in its own cache; weights are read
once per block. `positions`: all threads transform, then share out the positions' products, then transform back; V and M
pass through the shared cache, weights are read once. Measured on both (bench/notes/cpu.md): blocks win where reading
the weights again costs less than moving V and M.
"""

from dataclasses import dataclass
from math import ceil

from lrw_kernels.codegen.machine import LINE, MIB, Machine

MOST_SCRATCH = 48 * MIB  # V and M together, whatever the layer
TRANSFORM_VECTORS = 4  # channels of a pixel that are transformed together: what a 256-byte piece of a pixel holds
BLOCK_PANELS = 8  # panels of weights between two output transforms of a block


@dataclass(frozen=True)
class Size:
    """What a plan depends on: counts of positions, of tiles (in all, of a sample, of a row), of vectors of channels in
    and out, of numbers along the sum (`steps`) and of threads; bytes of a vector (`line`)."""

    positions: int
    tiles: int
    sample_tiles: int
    row_tiles: int  # along w
    vectors_in: int
    vectors_out: int
    steps: int
    line: int
    threads: int


@dataclass(frozen=True)
class Plan:
    """`tiles` per block; `rows` of a panel of tiles; `panels` of weights per pass; what a work item takes."""

    path: str
    tiles: int
    rows: int
    panels: int
    gather_vectors: int
    scatter_vectors: int
    products_panels: int


def plan(size: Size, machine: Machine, *, blocks: bool = True, most: int = MOST_SCRATCH) -> Plan:
    """The plan for `size`; `blocks` False leaves only the path by positions. V and M take `most` bytes, if they can."""
    rows = _rows(size.tiles, machine)
    all_panels = machine.panels(size.vectors_out)
    if blocks and _blocks_win(size, rows, machine, most):
        rows = _balanced_rows(size, machine)
        panels = ceil(all_panels / ceil(all_panels / BLOCK_PANELS))
        group = min(size.vectors_out, panels * machine.vectors)
        tiles = _block_tiles(size, rows, group, machine)
        vectors = min(size.vectors_in, TRANSFORM_VECTORS)
        return Plan("blocks", tiles, rows, panels, vectors, group, all_panels)
    tiles = _shared_tiles(size, rows, most)
    items = 8 * size.threads  # enough for threads that come late or leave early
    products_groups = min(all_panels, ceil(items / size.positions))
    row_runs = ceil(size.tiles / size.row_tiles)
    gather, scatter = (
        max(1, min(TRANSFORM_VECTORS, vectors // ceil(items / row_runs)))
        for vectors in (size.vectors_in, size.vectors_out)
    )
    return Plan("positions", tiles, rows, all_panels, gather, scatter, ceil(all_panels / products_groups))


def plane_bytes(tiles: int, rows: int, vectors: int, line: int) -> int:
    """Bytes from position to position of V or M: an odd number of cache lines, so that they spread over a cache."""
    lines = ceil(ceil(tiles / rows) * rows * vectors * line / LINE)
    return (lines + 1 - lines % 2) * LINE


def _rows(tiles: int, machine: Machine) -> int:
    """The micro-kernel's full height, or for few tiles an even one that divides them better."""
    panels = ceil(tiles / machine.rows)
    return machine.rows if panels > 2 else min(machine.rows, 2 * ceil(tiles / panels / 2))


def _balanced_rows(size: Size, machine: Machine) -> int:
    """An even height of the upper half that lets threads end together; the full one unless that saves 5 %."""
    heights = range(machine.rows, machine.rows // 2, -2)
    best = min(heights, key=lambda rows: _longest(size.tiles, rows, size.threads))
    saved = _longest(size.tiles, best, size.threads) < 0.95 * _longest(size.tiles, machine.rows, size.threads)
    return best if saved else machine.rows


def _longest(tiles: int, rows: int, threads: int) -> int:
    """How many tiles the busiest thread gets, in blocks of `rows` handed out one by one."""
    rounds, late = divmod(tiles // rows, threads)
    return rounds * rows + (rows if late else tiles % rows)


def _weights(size: Size) -> int:
    return size.positions * size.steps * size.vectors_out * size.line


def _blocks_win(size: Size, rows: int, machine: Machine, most: int) -> bool:
    weights, blocks = _weights(size), ceil(size.tiles / rows)
    moved = 2 * size.positions * size.tiles * (size.vectors_in + size.vectors_out) * size.line
    scratch = size.threads * size.positions * rows * (size.vectors_in + size.vectors_out) * size.line
    if blocks < 2 * size.threads or scratch > most:
        return False
    return weights <= machine.l3 // 2 and 2 * blocks * weights <= 5 * (moved + weights)


def _block_tiles(size: Size, rows: int, group: int, machine: Machine) -> int:
    """Tiles of a block: whole panels whose V and M fill the second-level cache, or fewer, so that all threads have
    blocks."""
    panel = size.positions * rows * (size.vectors_in + group) * size.line
    most = ceil(ceil(size.tiles / rows) / (4 * size.threads))
    return rows * max(1, min(most, machine.l2 // panel))


def _shared_tiles(size: Size, rows: int, most_bytes: int) -> int:
    """Tiles of a block on the path by positions: blocks of one size whose V and M stay below `most_bytes`."""
    panel = size.positions * rows * (size.vectors_in + size.vectors_out) * size.line
    panels, most = ceil(size.tiles / rows), max(1, most_bytes // panel)
    return ceil(panels / ceil(panels / most)) * rows
