"""Output pixels side by side as one pixel of more channels: a few channels fill no vector, and what neighbours read
overlaps. It is read once for all of them, and meets weights with zeros where a pixel does not reach.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import ceil, prod
from operator import mul
from typing import NamedTuple

import numpy as np

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.grid import HERE, Grid, Part, Place, Triple, every
from lrw_kernels.cpu.operators.taps import Taps
from lrw_kernels.cpu.step import Epilogue

MOST = 16  # runs that are tried as one pixel
# What costs time beside products of vectors, counted in these: a vector of a patch moved, a pixel's results placed, a
# step more to wait for.
MOVED, PLACED, STEP = 8, 16, 1 << 14


def alone(whole: Part, phases: Sequence[Taps]) -> Iterator[Part]:
    """Every pixel of a run by itself."""
    y, weight, grid, epilogue, _ = whole
    for at, taps in enumerate(phases):
        here = (0, 0, at), (1, 1, len(phases))
        residual = epilogue.residual and every(epilogue.residual, *here)
        yield Part(every(y, *here), weight, grid.along_w(taps), epilogue._replace(residual=residual))


def together(whole: Part, phases: Sequence[Taps], count: int) -> Iterator[Part]:
    """`count` runs at a time as one pixel, and what is left of each row as another one."""
    runs = whole.y.size[3] // len(phases)
    most = runs // count * count
    for first, some in ((0, count), (most, runs - most)):
        if some:
            yield _as_one(_from(whole, first, first * len(phases)), phases, some)


class Way(NamedTuple):
    """What it costs to take so many runs as one pixel; 0: every pixel by itself."""

    cost: float
    runs: int


def best(whole: Part, phases: Sequence[Taps], lanes: int, most_kept: int) -> Way:
    """The way that costs least; every pixel by itself where they lie apart. Patches are gathered where weights, with
    their zeros, have more bytes than `most_kept`."""
    y, weight, grid, (_, residual, _), _ = whole
    runs, beyond = divmod(y.size[3], len(phases))
    rows, (cin, cout), phase_count = len(grid.taps[0]) * len(grid.taps[1]), weight.shape[3:], len(phases)

    def cost(taps: int, pixels: int) -> float:
        kept = FLOAT * rows * taps * cin * pixels * cout
        moved = MOVED * rows * ceil(taps * cin / lanes) if kept > most_kept else 0
        return pixel_cost(rows * taps * cin, pixels * cout, lanes) + moved

    all_runs = y.pixels / phase_count
    ways = [Way(all_runs * sum(cost(len(taps), 1) for taps in phases) + phase_count * STEP, 0)]
    if beyond or not y.side_by_side or not (residual is None or residual.side_by_side):
        return ways[0]
    for count in {*(1 << i for i in range(MOST.bit_length())), runs}:
        if 0 < count <= min(runs, MOST):
            steps = 1 if runs % count == 0 else 2
            wide = cost(len(_reached(grid, phases, count)), count * phase_count)
            ways.append(Way(all_runs / count * wide + steps * STEP, count))
    return min(ways)


def cost(of: Part, lanes: int) -> float:
    """What a part costs whose pixels meet all of its weights."""
    terms, channels = prod(of.weight.shape[:4]), of.weight.shape[4]
    return of.y.pixels * pixel_cost(terms, channels, lanes, len(of.places)) + STEP


def pixel_cost(terms: int, channels: int, lanes: int, places: int = 1) -> float:
    """What an output pixel costs, in products of vectors: a sum of so many terms, results that lie in some places."""
    return terms * ceil(channels / lanes) + PLACED * places


def _reached(grid: Grid, phases: Sequence[Taps], runs: int) -> list[int]:
    """Where so many runs reach along w, from where the first one meets x, rising."""
    return sorted({offset + grid.step[2] * i for taps in phases for _, offset in taps for i in range(runs)})


def in_places(whole: Part, phases: Sequence[Sequence[Taps]], lanes: int, most_kept: int) -> Part | None:
    """Runs along all axes as one pixel: outputs phase + len(phases) * run of an axis have the taps phases[phase]. Each
    lies in a place of its own, but along w where they lie side by side. None where runs do not fill an axis, the
    channels of a place neither vectors nor a share of one, or weights more than `most_kept` bytes."""
    y, weight, grid, epilogue, _ = whole
    counts: Triple = (len(phases[0]), len(phases[1]), len(phases[2]))
    views = [y, epilogue.residual] if epilogue.residual else [y]
    together = counts[2] if all(view.side_by_side for view in views) else 1
    channels = together * y.channels
    reached = [sorted({offset for taps in axis for _, offset in taps}) for axis in phases]
    shape = *map(len, reached), weight.shape[3], prod(counts), y.channels
    beyond = any(size % count for size, count in zip(y.size[1:4], counts, strict=True))
    if beyond or (channels % lanes and lanes % channels) or FLOAT * prod(shape) > most_kept:
        return None
    wide = np.zeros(shape, np.float32)
    for pixel, at in enumerate(product(*map(range, counts))):
        for met in product(*(axis[i] for axis, i in zip(phases, at, strict=True))):
            i, j, k = (there.index(offset) for there, (_, offset) in zip(reached, met, strict=True))
            wide[i, j, k, :, pixel] = weight[tuple(k for k, _ in met)]
    pixels = product(range(counts[0]), range(counts[1]), range(0, counts[2], together))
    places = tuple(Place(*(sum(map(mul, at, view.strides[1:])) for view in views)) for at in pixels)
    y, *residual = (every(view, HERE, (*counts[:2], counts[2] // together)).together(together) for view in views)
    taps = [tuple(enumerate(offsets)) for offsets in reached]
    grid = Grid(grid.start, grid.step, (taps[0], taps[1], taps[2]))
    alike = _repeated(epilogue._replace(residual=None), prod(counts))
    return Part(y, wide.reshape(*wide.shape[:4], -1), grid, alike._replace(residual=next(iter(residual), None)), places)


def _from(part: Part, run: int, pixel: int) -> Part:
    """The part from a run on, which begins with `pixel` of a row."""
    d, h, w = part.grid.start
    grid = part.grid._replace(start=(d, h, w + part.grid.step[2] * run))
    here, residual = ((0, 0, pixel), (1, 1, 1)), part.epilogue.residual
    rest = part.epilogue._replace(residual=residual and every(residual, *here))
    return Part(every(part.y, *here), part.weight, grid, rest)


def _as_one(part: Part, phases: Sequence[Taps], runs: int) -> Part:
    """So many runs at a time as one pixel; what is left of a row is left out."""
    y, weight, grid, epilogue, _ = part
    reached, pixels = _reached(grid, phases, runs), runs * len(phases)
    kd, kh, _, cin, cout = weight.shape
    wide = np.zeros((kd, kh, len(reached), cin, pixels, cout), np.float32)
    for pixel in range(pixels):
        run, phase = divmod(pixel, len(phases))
        for k, offset in phases[phase]:
            wide[:, :, reached.index(offset + grid.step[2] * run), :, pixel] = weight[:, :, k]
    d, h, w = grid.step
    grid = grid._replace(step=(d, h, w * runs)).along_w(tuple(enumerate(reached)))
    return Part(y.together(pixels), wide.reshape(kd, kh, len(reached), cin, -1), grid, _repeated(epilogue, pixels))


def _repeated(epilogue: Epilogue, pixels: int) -> Epilogue:
    bias, residual, after = epilogue
    assert bias is None or isinstance(bias, np.ndarray)
    bias = None if bias is None else np.tile(bias, pixels)
    return Epilogue(bias, residual and residual.together(pixels), after and after.repeated(pixels))
