"""The library's own functions, for Numba: make the workspace ready, check the weights. All in int64, as all kernels.

Imports Numba: only the lowering child comes here.
"""

from collections.abc import Callable
from math import isqrt

from lrw_kernels.codegen.intrinsics import get, get_byte, put
from lrw_kernels.codegen.references import SECTION_BITS, Section
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import clear

WORD = 0xFFFFFFFF
BLOCK_BYTES = 64


def begin_function(sizes: tuple[int, int, int, int]) -> Callable[..., None]:
    """begin(image, relocations, functions, outside, weights, workspace), all addresses; at `outside` lie those of the
    caller's buffers.

    sizes: of the image in bytes, of the table of relocations in numbers, of the zeros behind the image in bytes, and
    where the buffers begin.
    """
    image_bytes, relocation_count, zero_bytes, buffers_at = sizes
    of_outside, of_weights, of_code = int(Section.OUTSIDE), int(Section.WEIGHTS), int(Section.CODE)
    of_image, of_zeros = int(Section.IMAGE), int(Section.ZEROS)
    bits, low = SECTION_BITS, (1 << SECTION_BITS) - 1

    def begin(image, relocations, functions, outside, weights, workspace):
        for i in range(0, image_bytes, 8):
            put(workspace + i, get(image + i))
        clear(workspace + image_bytes, zero_bytes)
        for i in range(relocation_count):
            at = workspace + get(relocations + 8 * i)
            section, offset = get(at) >> bits, get(at) & low
            if section == of_code:
                put(at, get(functions + 8 * offset))
            elif section >= of_outside:
                put(at, get(outside + 8 * (section - of_outside)) + offset)
            elif section == of_weights:
                put(at, weights + offset)
            elif section == of_image:
                put(at, workspace + offset)
            elif section == of_zeros:
                put(at, workspace + image_bytes + offset)
            else:
                put(at, workspace + buffers_at + offset)

    return begin


def digest_function() -> Callable[..., None]:
    """digest(data, size, scratch): SHA-256 (FIPS 180-4) of `size` bytes into the first 8 of 80 numbers at `scratch`.

    Words lie in int64s: 8 of the state, 8 at work, 64 of the schedule.
    """
    starts = tuple(_root_bits(prime, 2) for prime in _primes(8))
    constants = tuple(_root_bits(prime, 3) for prime in _primes(64))

    @helper
    def rotate(x, n):
        return ((x >> n) | (x << (32 - n))) & WORD

    @helper
    def byte_at(data, size, i):
        """Byte i of the padded message: a one bit, zeros, and at the end of the last block the length in bits."""
        if i < size:
            return get_byte(data + i)
        end = (size + 8) // BLOCK_BYTES * BLOCK_BYTES + BLOCK_BYTES
        if i == size:
            return 0x80
        return (8 * size >> 8 * (end - 1 - i)) & 0xFF if i >= end - 8 else 0

    @helper
    def fill(data, size, start, schedule):
        for t in range(16):
            word = 0
            for i in range(4):
                word = word << 8 | byte_at(data, size, start + 4 * t + i)
            put(schedule + 8 * t, word)
        for t in range(16, 64):
            x, y = get(schedule + 8 * (t - 15)), get(schedule + 8 * (t - 2))
            first = rotate(x, 7) ^ rotate(x, 18) ^ (x >> 3)
            second = rotate(y, 17) ^ rotate(y, 19) ^ (y >> 10)
            total = get(schedule + 8 * (t - 16)) + first + get(schedule + 8 * (t - 7)) + second
            put(schedule + 8 * t, total & WORD)

    @helper
    def rounds(state, schedule):
        a, b, c, d = get(state), get(state + 8), get(state + 16), get(state + 24)
        e, f, g, h = get(state + 32), get(state + 40), get(state + 48), get(state + 56)
        for t in range(64):
            choice, majority = (e & f) ^ ((e ^ WORD) & g), (a & b) ^ (a & c) ^ (b & c)
            first = h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + constants[t] + get(schedule + 8 * t)
            second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority
            h, g, f, e = g, f, e, (d + first) & WORD
            d, c, b, a = c, b, a, (first + second) & WORD
        for i, x in enumerate((a, b, c, d, e, f, g, h)):
            put(state + 8 * i, (get(state + 8 * i) + x) & WORD)

    def digest(data, size, scratch):
        schedule = scratch + 64
        for i in range(8):
            put(scratch + 8 * i, starts[i])
        for start in range(0, size + 9, BLOCK_BYTES):
            fill(data, size, start, schedule)
            rounds(scratch, schedule)

    return digest


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _root_bits(prime: int, degree: int) -> int:
    """The first 32 bits behind the point of a prime's square or cube root."""
    scaled = prime << 32 * degree
    root = isqrt(scaled) if degree == 2 else _cube_root(scaled)
    return root & WORD


def _cube_root(value: int) -> int:
    low, high = 0, 1 << (value.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= value else (low, middle - 1)
    return low
