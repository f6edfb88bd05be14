"""The file of a library's weights: what it begins with, by which the library knows its own."""

import hashlib
from struct import pack

from lrw_kernels.aot.abi import ABI_VERSION

MAGIC = b"lrw-wgts"
HEADER_BYTES = 64


def header_of(payload: bytes) -> bytes:
    """The HEADER_BYTES before the numbers in a file of weights: magic, version, size in all, SHA-256 of the numbers."""
    size, digest = HEADER_BYTES + len(payload), hashlib.sha256(payload).digest()
    return pack("<8sQQ32s8x", MAGIC, ABI_VERSION, size, digest)
