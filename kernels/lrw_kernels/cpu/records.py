"""The records of what serves other kernels: memory cleared, matrices moved, memory hashed."""

from lrw_kernels.codegen.records import Record, fields


class Clear(Record):
    """`size` bytes to be zeroed, a multiple of 8."""

    _fields_ = fields("data size")
    addresses = ("data",)


class Matrix(Record):
    """A matrix [outer, rows, columns] copied or transposed, piece by piece: a work item is `row_chunk` rows and
    `column_chunk` columns, whose result begins `target_i`, `target_j` bytes per piece further on."""

    _fields_ = fields(
        "source target source_outer target_outer source_row target_row rows columns row_chunk column_chunk "
        "target_i target_j"
    )
    addresses = ("source", "target")


class Digest(Record):
    """The hashes (int64) of pieces of memory: `table` has the address and the bytes of each."""

    _fields_ = fields("table hashes")
    addresses = ("table", "hashes")
