"""How kernels are launched: frozen configurations, chosen by pure functions of the problem."""

from dataclasses import dataclass, replace
from functools import cache
from math import prod

from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd.tile import Triple

WORKSPACE = 512 << 20  # bytes of V and M at a time, at most
LEAST_WORKSPACE = 128 << 20  # a GPU moves that in the time that the host takes to start its kernels
WARP = 32
ACROSS = 64  # channels of a program that transforms
REGISTERS = 136  # of a thread that blocks of a transform may hold; the rest is for addresses
ALL_REGISTERS = 255  # that a thread can have
WIDEST = 128  # rows and columns of a program's products; on Hopper twice as many columns where they are stored once
TRANSPOSED = 64  # rows and columns of U that a program turns
FUSED_STEPS = 128  # most input channels for which products and the inverse transform are one kernel
FUSED_OUTPUTS = 8  # most outputs of a tile, which stay in registers meanwhile


@dataclass(frozen=True)
class Transform:
    """Tiles x channels of a program, its warps, the registers that a thread may have.

    Without a number of registers the assembler keeps to fewer than there are, to fit one program more on a
    multiprocessor, at the price of some bytes of stack where it is a little short.
    """

    tiles: int
    channels: int
    warps: int
    registers: int | None = None


@dataclass(frozen=True)
class Products:
    """rows x columns of a program, steps of the sum at a time, warps, stages of the pipeline, rows of a band, the
    registers that a thread may have (as for transforms)."""

    rows: int
    columns: int
    steps: int
    warps: int
    stages: int
    group: int = 8
    registers: int | None = None


@cache
def gather(
    patch: int, lines: int, channels: int, itemsize: int, *, packed: bool = False, by_tile: bool = False
) -> Transform:
    """For `patch` numbers of a plane held at a time, and `lines` beside them; two of them a register if `packed`.

    `by_tile`: V has tiles one behind the other, so that a program takes more of these and fewer channels.
    """
    return _transform((patch + lines) // (2 if packed else 1), channels, itemsize, 32 if by_tile else ACROSS)


@cache
def scatter(outputs: Triple, positions: int, overlap: int, channels: int, itemsize: int) -> tuple[int, Transform]:
    """Planes of a cell that a program forms: all, or fewer where registers hold no more; and what it takes. `overlap`
    tiles reach a cell."""
    plane, most = outputs[1] * outputs[2], 64 if overlap == 1 else 32
    depths = max(n for n in range(1, outputs[0] + 1) if outputs[0] % n == 0 and (n == 1 or n * plane <= most))
    chosen = _transform((depths + 1) * plane + positions, channels, itemsize)
    spills = overlap > 1 or positions > 4  # left to the assembler: sums over tiles, and all beyond F(2, 3)
    return depths, replace(chosen, registers=ALL_REGISTERS) if spills else chosen


def _transform(blocks: int, channels: int, itemsize: int, widest: int = ACROSS) -> Transform:
    """As many channels of a thread as one access takes, of 16 bytes at most and aligned, or fewer where registers are
    full before."""
    each, warps = min(16 // itemsize, channels & -channels), 4
    while each > 1 and blocks * each > REGISTERS:
        each //= 2
    across = min(widest, _power(channels))
    return Transform(max(1, warps * WARP * each // across), across, warps, ALL_REGISTERS if each == 1 else None)


@cache
def products(precision: Precision, rows: int, columns: int, steps: int, capability: int) -> Products:
    """For products of V [rows, steps] and U [steps, columns] at each position."""
    chosen = _products(precision, rows, columns, steps, even=steps % 16 == columns % 16 == 0)
    whole = chosen.rows == chosen.columns == WIDEST and columns % (2 * WIDEST) == 0
    if precision != "ieee" and whole and capability >= 90:  # before, both factors take registers too
        return replace(chosen, columns=2 * WIDEST)
    return chosen


@cache
def weight_sums(precision: Precision, rows: int, columns: int, steps: int) -> Products:
    """For products V^T dM [rows, columns] over many steps, added to what is there, which takes registers too."""
    return _products(precision, rows, columns, steps, even=rows % 16 == columns % 16 == 0)


def _products(precision: Precision, rows: int, columns: int, steps: int, *, even: bool) -> Products:
    """Where channels are not `even`, accesses are of single numbers, and their addresses take registers: smaller
    blocks, more warps."""
    widest = WIDEST if even and precision != "ieee" else WIDEST // 2
    down, across = (min(widest, max(16, _power(n))) for n in (rows, columns))
    along = 16 if precision == "ieee" else min(64 if precision == "half" else 32, max(16, _power(steps)))
    if not even:
        return Products(down, across, along, 8 if down == across == widest else 4, 2)
    if precision == "ieee":
        return Products(down, across, along, 4, 2, registers=128)  # with 96, the assembler's choice, it spills
    down = down if across >= 64 else min(down, 64)
    return Products(down, across, along, 8 if down * across > 64 * WIDEST else 4, 3)


@cache
def fused(precision: Precision, steps: int, columns: int, outputs: Triple) -> Products | None:
    """For products and inverse transform in one; None where that is no kernel of ours."""
    whole_blocks = steps % 16 == 0 and columns % 16 == 0
    if precision == "ieee" or steps > FUSED_STEPS or not whole_blocks or prod(outputs) > FUSED_OUTPUTS:
        return None
    stages = 2 if steps > 64 else 4 if precision == "half" else 3
    return Products(64, 64, _power(steps), 8, stages)


def splits(rows: int, columns: int, steps: int, positions: int, config: Products) -> int:
    """Parts of a long sum, so that there are programs enough for a large GPU; each has some loops at least."""
    programs = -(-rows // config.rows) * -(-columns // config.columns) * positions
    return max(1, min(16, 2 * 132 // programs, steps // (16 * config.steps)))


def _power(n: int) -> int:
    """The least power of two from n on."""
    return 1 << max(0, n - 1).bit_length()
