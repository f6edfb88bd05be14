"""The sum of a convolution as runs of contiguous numbers: where each lies in a patch, and the weights in that order.

An axis has taps (index in the kernel, offset in x). Where pixels lie side by side and offsets follow one another, a row
of a patch is one run of kw * Cin numbers; otherwise there is one run of Cin a tap. Runs are strung together, and cut
where a chunk ends.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.cpu.micro import CHUNK
from lrw_kernels.cpu.step import integers

Taps = tuple[tuple[int, int], ...]
Array = npt.NDArray[np.float32]
NOWHERE = -(1 << 40)  # a plane no activations have


class Pieces(NamedTuple):
    """`table` [pieces, records.PIECE_FIELDS], `chunks` [chunks + 1] the first piece of each, `terms` of the sum."""

    table: npt.NDArray[np.int64]
    chunks: npt.NDArray[np.int64]
    terms: int


class Run(NamedTuple):
    """Numbers of a patch that are contiguous in x: its place as in a piece, the kernel's taps they meet."""

    d: int
    h: int
    first: int
    taps: tuple[tuple[int, int, int], ...]


def runs(taps: tuple[Taps, Taps, Taps], cin: int, pixel_floats: int) -> list[Run]:
    """The runs of a patch, of x with so many numbers from pixel to pixel."""
    rows = product(taps[0], taps[1])
    offsets = [offset for _, offset in taps[2]]
    joined = pixel_floats == cin and len(offsets) > 0 and offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    groups = [taps[2]] if joined else [(tap,) for tap in taps[2]]
    return [
        Run(d, h, group[0][1] * pixel_floats, tuple((kd, kh, kw) for kw, _ in group))
        for (kd, d), (kh, h) in rows
        for group in groups
    ]


def pieces(of: list[Run], cin: int) -> Pieces:
    """The pieces of the runs `of` a patch of `cin` channels: where each of its numbers comes from. A sum of nothing is
    one term that lies outside."""
    table: list[tuple[int, int, int, int, int]] = []
    firsts, term = [0], 0
    for run in of:
        length, done = len(run.taps) * cin, 0
        while done < length:
            count = min(length - done, CHUNK - term % CHUNK)
            table.append((run.d, run.h, run.first + done, count, term % CHUNK))
            done += count
            term += count
            if term % CHUNK == 0:
                firsts.append(len(table))
    if not table:
        table, term = [(NOWHERE, 0, 0, 1, 0)], 1
    if term % CHUNK != 0:
        firsts.append(len(table))
    return Pieces(np.array(table, np.int64), integers(firsts), term)


def weight_rows(weight: Array, of: list[Run]) -> Array:
    """The rows [terms, Cout] of weight [kd, kh, kw, Cin, Cout] in the order of the runs; without runs one of zeros."""
    if not of:
        return np.zeros((1, weight.shape[4]), np.float32)
    return np.concatenate([weight[tap] for run in of for tap in run.taps])
