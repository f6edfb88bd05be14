"""Memory that changed has another digest, whatever changed and however it is cut up."""

import numpy as np
import pytest

from lrw_kernels.cpu.digest import PIECE, digest, pieces, place
from verify.strategies import Array

SIZES = (0, 1, 7, 8, 255, 256, 257, PIECE - 1, PIECE, 3 * PIECE + 300)


def of(x: Array, workers: int = 1) -> bytes:
    """The digest of all of an array's bytes."""
    return digest(place(x.ctypes.data, x.nbytes), workers)


@pytest.mark.parametrize("size", SIZES)
def test_every_byte_counts(size: int) -> None:
    x = np.random.default_rng(size).integers(0, 256, size, np.uint8)
    whole = of(x)
    assert of(x.copy(), 2) == whole
    assert len(whole) == 8 * -(-size // PIECE)
    for at in {0, size // 3, size // 2, size - 1} if size else ():
        for bit in range(8):
            x[at] ^= 1 << bit
            assert of(x) != whole
            x[at] ^= 1 << bit
    assert of(x) == whole


def test_what_is_done_to_weights_is_seen() -> None:
    x = np.random.default_rng(1).standard_normal(PIECE).astype(np.float32)
    seen = {of(x)}
    changes = [-x, x[::-1], 2 * x, np.roll(x, 1), np.roll(x, PIECE // 4), np.zeros_like(x), np.where(x > 0, x, -x)]
    for two in ((0, 1), (0, 2), (0, 64), (5, PIECE // 4 + 5), (0, PIECE - 1)):
        flipped, exchanged = x.copy(), x.copy()
        flipped[[*two]] *= -1
        exchanged[[*two]] = x[[*reversed(two)]]
        changes += [flipped, exchanged]
    for changed in changes:
        seen.add(of(np.ascontiguousarray(changed)))
    assert len(seen) == 1 + len(changes)


def test_several_places_are_read_one_after_the_other() -> None:
    x = np.random.default_rng(2).standard_normal(PIECE).astype(np.float32)
    parts = [x[:100], x[100:40000], x[:0], x[40000:]]
    places = [range(part.ctypes.data, part.ctypes.data + part.nbytes) for part in parts]
    assert digest(pieces(places), 2) == b"".join(of(part) for part in parts)
    assert digest(pieces(()), 2) == b""
