"""What kernels read beside activations and weights: records and tables, as bytes with the places of addresses.

A library copies these bytes to the start of its workspace and puts addresses where they belong. Until then an address
is symbolic: a section in the upper bits, an offset in the lower ones. Addresses in this process, of records and tables,
become offsets into the image.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from lrw_kernels.codegen.machine import LINE
from lrw_kernels.codegen.records import Record

SECTION_BITS = 48  # no address of a process has any above


class Section(IntEnum):
    """What symbolic addresses are relative to."""

    INPUT = 1
    OUTPUT = 2
    WEIGHTS = 3
    IMAGE = 4
    ZEROS = 5
    BUFFERS = 6
    CODE = 7  # the offset is the kernel's number
    BUFFER = 8  # this one and all above: a buffer each, until it has a place among BUFFERS


def symbolic(section: int, offset: int = 0) -> int:
    """An address to be filled in by the library."""
    return (section << SECTION_BITS) + offset


@dataclass(frozen=True)
class Range:
    """Bytes of this process that have a symbolic address."""

    start: int
    size: int
    address: int


@dataclass(frozen=True)
class Frozen:
    """`data` with symbolic addresses at offsets `relocations`; kernels read `zeros` bytes of zeros at most."""

    data: bytes
    relocations: tuple[int, ...]
    zeros: int


class Image:
    """Collects records and tables; `freeze` gives their bytes."""

    def __init__(self) -> None:
        self._size = 0
        self._ranges: list[Range] = []
        self._pieces: list[tuple[int, Any]] = []
        self._rows: list[tuple[int, Sequence[Record]]] = []
        self._zeros = 0

    def knows(self, address: int) -> bool:
        """Whether something that begins there was added."""
        return any(known.start == address for known in self._ranges)

    def add_elsewhere(self, address: int, size: int, place: int) -> None:
        """Bytes that lie at the symbolic address `place`."""
        self._ranges.append(Range(address, size, place))

    def add_table(self, table: Any) -> None:
        """A contiguous array kernels read through its address."""
        self._pieces.append((self._reserve(table.ctypes.data, table.nbytes), table))

    def add_zeros(self, address: int, size: int) -> None:
        """Memory that holds zeros: all of it shares one place."""
        self._zeros = max(self._zeros, size)
        self._ranges.append(Range(address, size, symbolic(Section.ZEROS)))

    def add_records(self, row: Sequence[Record]) -> int:
        """Records that lie one after the other, to be read when the image is frozen; returns the first one's offset."""
        size = sum(memoryview(record).nbytes for record in row)
        at = self._reserve(row[0].address, size)
        self._rows.append((at, row))
        return at

    def freeze(self, places: Sequence[int]) -> Frozen:
        """The bytes, addresses in this process exchanged for symbolic ones, buffers for their `places` in BUFFERS.

        Raises RuntimeError for an address that is neither symbolic nor of anything that was added.
        """
        data, relocations = bytearray(self._size), list[int]()
        for at, table in self._pieces:
            data[at : at + table.nbytes] = table.tobytes()
        known = _Known(self._ranges, places)
        for at, row in self._rows:
            for record in row:
                copy = record.copy()
                for field in (field for field in record.addresses if getattr(record, field) != 0):
                    setattr(copy, field, known.address(getattr(record, field), f"{type(record).__name__}.{field}"))
                    relocations.append(at + getattr(type(record), field).offset)
                data[at : at + len(bytes(copy))] = bytes(copy)
                at += len(bytes(copy))
        return Frozen(bytes(data), tuple(sorted(relocations)), self._zeros)

    def _reserve(self, address: int, size: int) -> int:
        at = self._size
        self._ranges.append(Range(address, size, symbolic(Section.IMAGE, at)))
        self._size = -(-(at + size) // LINE) * LINE
        return at


class _Known:
    """All addresses that can be exchanged."""

    def __init__(self, ranges: Sequence[Range], places: Sequence[int]) -> None:
        self._ranges, self._places = sorted(ranges, key=lambda known: known.start), places
        self._starts = [known.start for known in self._ranges]

    def address(self, value: int, what: str) -> int:
        """The symbolic address for `value`, which is that of `what`."""
        section, offset = divmod(value, 1 << SECTION_BITS)
        if section >= Section.BUFFER:
            return symbolic(Section.BUFFERS, self._places[section - Section.BUFFER] + offset)
        if section > 0:
            return value
        index = bisect_right(self._starts, value) - 1
        # What is empty, as the tables of a block without columns, still has its own address.
        if index < 0 or value >= self._starts[index] + max(self._ranges[index].size, 1):
            raise RuntimeError(f"image: {what} is the address {value:#x} of nothing that was added")
        return self._ranges[index].address + value - self._starts[index]
