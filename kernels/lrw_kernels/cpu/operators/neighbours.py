"""Output pixels side by side as one pixel of more channels: a few channels fill no vector, and what neighbours read
overlaps. It is read once for all of them, and meets weights with zeros where a pixel does not reach.
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.grid import Grid, every
from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import Epilogue, View

MOST = 16  # runs that are tried as one pixel
# What costs time beside products of vectors, counted in these: a vector of a patch moved, a pixel's results placed, a
# step more to wait for.
MOVED, PLACED, STEP = 8, 16, 1 << 14


class Part(NamedTuple):
    """Some pixels of a convolution, as a convolution of its own: y of x by a weight [kd, kh, kw, Cin, Cout].

    A whole one whose outputs along w come in runs of a few pixels, its phases, says in `grid` where runs meet x; the
    taps along w are each phase's own.
    """

    y: View
    weight: Array
    grid: Grid
    epilogue: Epilogue


def alone(whole: Part, phases: Sequence[Taps]) -> Iterator[Part]:
    """Every pixel of a run by itself."""
    y, weight, grid, epilogue = whole
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


def best(whole: Part, phases: Sequence[Taps], lanes: int, most_kept: int) -> int:
    """How many runs cost least as one pixel; 0 where that is every pixel by itself, or they lie apart. Patches are
    gathered where weights, with their zeros, have more bytes than `most_kept`."""
    y, weight, grid, (_, residual, _) = whole
    runs, beyond = divmod(y.size[3], len(phases))
    if beyond or not y.side_by_side or not (residual is None or residual.side_by_side):
        return 0
    rows, (cin, cout), phase_count = len(grid.taps[0]) * len(grid.taps[1]), weight.shape[3:], len(phases)

    def cost(taps: int, pixels: int) -> float:
        products, kept = rows * taps * cin * ceil(pixels * cout / lanes), FLOAT * rows * taps * cin * pixels * cout
        return products + (MOVED * rows * ceil(taps * cin / lanes) if kept > most_kept else 0) + PLACED

    all_runs = y.pixels // phase_count
    costs = {0: all_runs * sum(cost(len(taps), 1) for taps in phases) + phase_count * STEP}
    for count in {*(1 << i for i in range(MOST.bit_length())), runs}:
        if 0 < count <= min(runs, MOST):
            steps = 1 if runs % count == 0 else 2
            wide = cost(len(_reached(grid, phases, count)), count * phase_count)
            costs[count] = all_runs / count * wide + steps * STEP
    return min(sorted(costs), key=costs.__getitem__)


def _reached(grid: Grid, phases: Sequence[Taps], runs: int) -> list[int]:
    """Where so many runs reach along w, from where the first one meets x, rising."""
    return sorted({offset + grid.step[2] * i for taps in phases for _, offset in taps for i in range(runs)})


def _from(part: Part, run: int, pixel: int) -> Part:
    """The part from a run on, which begins with `pixel` of a row."""
    d, h, w = part.grid.start
    grid = part.grid._replace(start=(d, h, w + part.grid.step[2] * run))
    here, residual = ((0, 0, pixel), (1, 1, 1)), part.epilogue.residual
    rest = part.epilogue._replace(residual=residual and every(residual, *here))
    return Part(every(part.y, *here), part.weight, grid, rest)


def _as_one(part: Part, phases: Sequence[Taps], runs: int) -> Part:
    """So many runs at a time as one pixel; what is left of a row is left out."""
    y, weight, grid, epilogue = part
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
