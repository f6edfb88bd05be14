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
        """Where it lies, for as long as it lives."""
        return ctypes.addressof(self)


def fields(names: str) -> list[tuple[str, type[ctypes.c_int64]]]:
    """A record's, from their names."""
    return [(name, ctypes.c_int64) for name in names.split()]


class Side(Record):
    """One transform between activations and the domain.

    `data` [n, d, h, w, channels] with its strides and sizes; the tile grid, its start and step in activations;
    `vectors` of channels. In the domain, [positions][panels][vectors][rows] vectors: `panel` bytes from panel to panel
    of `rows` tiles, `table` the offsets of the positions. `zeros` is a row of zeros for rows outside, `constants`
    the program's; `kernel` the transform. A work item takes a `run` of tiles and `split` vectors, `shift` bytes apart
    in the domain; `base` is the first of the block's `tiles`. bias, residual and relu are the epilogue of an output
    transform.
    """

    _fields_ = fields(
        "data stride_n stride_d stride_h stride_w size_d size_h size_w grid_d grid_h grid_w start_d start_h start_w "
        "step_d step_h step_w channels vectors split shift run base tiles rows panel table domain zeros constants "
        "kernel bias residual relu"
    )
    addresses = ("data", "table", "domain", "zeros", "constants", "kernel", "bias", "residual")


class Products(Record):
    """The products of all positions.

    V and M with tables of where the positions lie in them, the bytes from panel to panel, `m_vector` from vector to
    vector; packed weights likewise, `weights_plane` from position to position; `steps` the length of the sum, `tiles`
    of the block, `panels` of weights, of which a work item takes `split`; `vectors` of C in all, `panel_vectors` in a
    wide panel. `add`: whether dU is added to what is there.
    """

    _fields_ = fields(
        "v v_table v_panel m m_table m_panel m_vector weights weights_plane weights_panel "
        "steps tiles panels split vectors panel_vectors positions add kernel"
    )
    addresses = ("v", "v_table", "m", "m_table", "weights", "kernel")


class Blocks(Record):
    """A whole convolution, block by block of `tiles` tiles, each block by one thread: input transform, then for each of
    `groups` of output channels (whose records lie one after the other) products and output transform, `panels` of
    weights at a time. V lies at the start of the thread's scratch, M from `m_at` on, the transforms' own scratch from
    `scratch_at`; `zero_bytes` from `zero_at` are zeroed first."""

    _fields_ = fields("gather groups products scatter all_tiles tiles panels m_at scratch_at zero_at zero_bytes")
    addresses = ("gather", "products", "scatter")


class Clear(Record):
    """`size` bytes to be zeroed, a multiple of 8."""

    _fields_ = fields("data size")
    addresses = ("data",)


class Region(Record):
    """A parallel region: `items` go out `chunk` at a time to whoever comes; every thread takes a slice of scratch, of
    which there are `workers`."""

    _fields_ = fields("kernel job items chunk scratch scratch_bytes workers arrived next")
    addresses = ("kernel", "job", "scratch")


class Matrix(Record):
    """A matrix [outer, rows, columns] copied or transposed, piece by piece: a work item is `row_chunk` rows and
    `column_chunk` columns, whose result begins `target_i`, `target_j` bytes per piece further on."""

    _fields_ = fields(
        "source target source_outer target_outer source_row target_row rows columns row_chunk column_chunk "
        "target_i target_j"
    )
    addresses = ("source", "target")


class Digest(Record):
    """The hashes (int64) of `size` bytes, one for each `chunk` of them."""

    _fields_ = fields("data size chunk hashes")
    addresses = ("data", "hashes")


def row(records: Sequence[Record]) -> tuple[Any, ...]:
    """Copies of records of one kind that lie one after the other."""
    array = (type(records[0]) * len(records))(*records)
    return tuple(array)


def layout(record: type[Record]) -> np.dtype:  # type: ignore[type-arg]
    """The same fields for Numba."""
    return np.dtype([(field[0], np.int64) for field in record._fields_])
