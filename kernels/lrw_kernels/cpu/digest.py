"""What memory holds, in a few bytes: whether it holds the same again is then a comparison."""

from ctypes import addressof, c_char
from functools import lru_cache
from typing import Any

from lrw_kernels.codegen import threads
from lrw_kernels.cpu import library, records

CHUNK = 1 << 16  # bytes of a work item, a fixed number: the digest must not depend on the threads there are
ALONE = 1 << 20  # bytes one thread reads in the time it takes to wake others


def digest(address: int, size: int, workers: int) -> bytes:
    """8 bytes for each CHUNK of the `size` bytes at `address`, read once, by up to `workers` threads. See `mix`."""
    chunks = -(-size // CHUNK)
    hashes = _bytes(8 * chunks)()
    job = records.Digest(address, size, CHUNK, addressof(hashes))
    threads.run(_kernel(), job.address, chunks, 0, 0, workers if size > ALONE else 1)
    held: bytes = hashes.raw
    return held


@lru_cache(maxsize=1)
def _kernel() -> int:
    return library.digest_item().address


@lru_cache(maxsize=256)
def _bytes(count: int) -> Any:
    """The ctypes array of `count` bytes."""
    return c_char * count
