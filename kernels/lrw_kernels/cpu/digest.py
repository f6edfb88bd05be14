"""What memory holds, in a few bytes: whether it holds the same again is then a comparison."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen import threads
from lrw_kernels.cpu import library, records

PIECE = 1 << 16  # bytes of a work item at most
ALONE = 1 << 20  # bytes one thread reads in the time it takes to wake others


class Pieces(NamedTuple):
    """Memory cut up: address and bytes of each piece, and the bytes of all."""

    table: npt.NDArray[np.int64]
    size: int


def pieces(places: Sequence[range]) -> Pieces:
    """The memory at `places`, ranges of addresses, one after the other."""
    parts = [np.zeros((0, 2), np.int64)]
    for place in places:
        starts = np.array([*place[::PIECE]], np.int64)
        parts.append(np.stack([starts, np.minimum(PIECE, place.stop - starts)], axis=1))
    return Pieces(np.concatenate(parts), sum(map(len, places)))


def digest(of: Pieces, workers: int) -> bytes:
    """8 bytes for each piece, which is read once, by up to `workers` threads. See `mix`."""
    hashes = np.empty(len(of.table), np.int64)
    job = records.Digest(of.table.ctypes.data, hashes.ctypes.data)
    threads.run(_kernel(), job.address, len(hashes), 0, 0, workers if of.size > ALONE else 1)
    return hashes.tobytes()


@lru_cache(maxsize=256)
def place(address: int, size: int) -> Pieces:
    """The memory of so many bytes at an address."""
    return pieces((range(address, address + size),))


@lru_cache(maxsize=1)
def _kernel() -> int:
    return library.digest_item().address
