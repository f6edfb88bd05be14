"""What kernels read beside activations and weights: records and tables, as bytes with the places of addresses.

They are copied to where a program runs, and addresses put where symbolic ones were (`codegen.references`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lrw_kernels.codegen.machine import LINE
from lrw_kernels.codegen.records import Record
from lrw_kernels.codegen.references import SECTION_BITS, Section, section_of, symbolic


@dataclass(frozen=True)
class Frozen:
    """`data` with symbolic addresses at offsets `relocations`; kernels read `zeros` bytes of zeros at most."""

    data: bytes
    relocations: tuple[int, ...]
    zeros: int


class Image:
    """Collects records and tables; `freeze` gives their bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._relocations: list[int] = []
        self._zeros = 0

    def add_table(self, data: bytes) -> int:
        """The symbolic address of numbers kernels read."""
        return symbolic(Section.IMAGE, self._append(data))

    def add_zeros(self, size: int) -> int:
        """The symbolic address of memory that holds zeros: all of it shares one place."""
        self._zeros = max(self._zeros, size)
        return symbolic(Section.ZEROS)

    def add_records(self, row: Sequence[Record]) -> int:
        """The symbolic address of records that lie one after the other, whose addresses are symbolic or 0."""
        first = at = self._append(b"".join(map(bytes, row)))
        for record in row:
            for name in record.addresses:
                if getattr(record, name) != 0:
                    self._relocations.append(at + getattr(type(record), name).offset)
            at += len(bytes(record))
        return symbolic(Section.IMAGE, first)

    def freeze(self, places: Sequence[int]) -> Frozen:
        """The bytes, with buffers at their `places` in BUFFERS."""
        for at in self._relocations:
            address = int.from_bytes(self._data[at : at + 8], "little")
            buffer, offset = section_of(address) - Section.BUFFER, address & ((1 << SECTION_BITS) - 1)
            if buffer >= 0:
                placed = symbolic(Section.BUFFERS, places[buffer] + offset)
                self._data[at : at + 8] = placed.to_bytes(8, "little")
        return Frozen(bytes(self._data), tuple(sorted(self._relocations)), self._zeros)

    def _append(self, data: bytes) -> int:
        at = len(self._data)
        self._data += data
        self._data += bytes(-len(self._data) % LINE)
        return at
