"""The records kernels read: everything about a call that is data. Addresses and strides are bytes, all int64.

ctypes structures, because filling one in is what a call costs before any work is done.
"""

import ctypes
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np


class Record(ctypes.Structure):
    """Fields of one int64 each, zero until set; `addresses` names those that are one, or 0."""

    addresses: ClassVar[tuple[str, ...]] = ()

    def set(self, **fields: int) -> None:
        """Set some fields."""
        for name, value in fields.items():
            setattr(self, name, value)

    def copy(self) -> Any:
        """A second record with the same values."""
        return type(self).from_buffer_copy(self)

    @property
    def address(self) -> int:
        """The address at which the record lies, for as long as it lives."""
        return ctypes.addressof(self)


def fields(names: str) -> list[tuple[str, type[ctypes.c_int64]]]:
    """The `_fields_` of a record, from their names: an int64 each."""
    return [(name, ctypes.c_int64) for name in names.split()]


class Region(Record):
    """A parallel region: `items` go out one by one to whoever comes; every thread takes a slice of scratch, of which
    there are `workers`."""

    _fields_ = fields("kernel job items scratch scratch_bytes workers arrived next")
    addresses = ("kernel", "job", "scratch")


class Regions(Record):
    """`count` regions one after the other from `first` on; a thread that is done with one calls the function at `wait`,
    if that is not 0, which returns once all are."""

    _fields_ = fields("first count wait")
    addresses = ("first", "wait")


def row(records: Sequence[Record]) -> tuple[Any, ...]:
    """Copies of records of one kind that lie one after the other."""
    array = (type(records[0]) * len(records))(*records)
    return tuple(array)


def layout(record: type[Record]) -> np.dtype:  # type: ignore[type-arg]
    """The same fields for Numba."""
    return np.dtype([(field[0], np.int64) for field in record._fields_])
