"""What memory holds, in a few bytes: whether it holds the same again is then a comparison."""

from ctypes import addressof, c_char

from lrw_kernels.cpu import library, records, threads

CHUNK = 1 << 16  # bytes of a work item, a fixed number: the digest must not depend on the threads there are


def digest(address: int, size: int, workers: int) -> bytes:
    """8 bytes for each CHUNK of the `size` bytes at `address`, read once, by up to `workers` threads. See `mix`."""
    chunks = -(-size // CHUNK)
    hashes = (c_char * (8 * chunks))()
    job = records.Digest(data=address, size=size, chunk=CHUNK, hashes=addressof(hashes))
    threads.run(library.digest_range().address, job.address, chunks, 1, 0, 0, workers)
    return hashes.raw
