"""Matrices put where kernels want them: weights into panels, channels first into channels last."""

from typing import Any

import numpy as np

from lrw_kernels.codegen import threads
from lrw_kernels.codegen.machine import BYTES, Machine
from lrw_kernels.cpu import library, records
from lrw_kernels.cpu.step import Table

CHUNK = 256  # rows and columns a work item transposes
NARROW = 8  # rows or columns at most that are picked lane by lane
STRETCH = 4096  # of the others, a work item's where they are NARROW


def pack(
    source: int,
    target: int,
    shape: tuple[int, int, int],
    machine: Machine,
    element: str,
    *,
    transposed: bool,
    workers: int,
) -> None:
    """Weights [positions, rows, columns] at `source` into panels at `target`: `machine.vectors` vectors of columns
    wide, then of one vector; `transposed` exchanges rows and columns first.

    A panel is [sum, columns]; what it has beyond the last column is left as it is (zero in new memory).
    """
    positions, rows, columns = shape
    size, lanes = BYTES[element], machine.lanes(element)
    terms, outputs = (columns, rows) if transposed else (rows, columns)
    vectors, wide = machine.vectors_of(outputs, element), machine.vectors * lanes
    whole = vectors // machine.vectors * wide
    for first, last, width in ((0, min(outputs, whole), wide), (whole, outputs, lanes)):
        if last > first:
            count, panel = last - first, terms * width * size
            row, chunk = columns * size, (width, terms) if transposed else (terms, width)
            _move(
                {
                    "source": source + first * (row if transposed else size),
                    "target": target + first * terms * size,
                    "source_outer": rows * row,
                    "target_outer": vectors * lanes * terms * size,
                    "source_row": row,
                    "target_row": width * size,
                    "rows": count if transposed else terms,
                    "columns": terms if transposed else count,
                    "row_chunk": chunk[0],
                    "column_chunk": chunk[1],
                    "target_i": panel,
                    "target_j": panel,
                },
                positions * -(-count // width),
                library.matrix_item(element, lanes, transposed).address,
                workers,
            )


def panels(weights: Table, machine: Machine) -> Table:
    """The same as a table, by no kernel: weights [positions, rows, columns] in panels, zeros beyond the last
    column."""
    made = np.zeros(panels_shape(weights.shape, machine, str(weights.dtype)), weights.dtype)
    put_rows(made, weights, 0, weights.shape[1], machine)
    return made.ravel()


def panels_shape(shape: tuple[int, ...], machine: Machine, element: str) -> tuple[int, int]:
    """[positions, numbers of each] of weights of `shape` [positions, rows, columns] in panels."""
    positions, rows, columns = shape
    return positions, rows * machine.vectors_of(columns, element) * machine.lanes(element)


def put_rows(made: Table, weights: Table, first: int, rows: int, machine: Machine) -> None:
    """Write weights [positions, some rows, columns], from row `first` of `rows` on, to where they lie in panels."""
    positions, some, columns = weights.shape
    lanes = machine.lanes(str(made.dtype))
    vectors, wide = -(-columns // lanes), machine.vectors * lanes
    if columns % lanes:
        weights = np.pad(weights, ((0, 0), (0, 0), (0, vectors * lanes - columns)))
    whole = vectors // machine.vectors * wide
    for begin, end, width in ((0, whole, wide), (whole, vectors * lanes, lanes)):
        count = (end - begin) // width
        to = made[:, begin * rows : end * rows].reshape(positions, count, rows, width)
        source = weights[:, :, begin:end].reshape(positions, some, count, width)
        to[:, :, first : first + some] = source.swapaxes(1, 2)


def transpose(
    source: int, target: int, shape: tuple[int, int, int], machine: Machine, element: str, workers: int
) -> None:
    """target [outer, columns, rows] = source [outer, rows, columns] transposed."""
    outer, rows, columns = shape
    size, lanes, few = BYTES[element], machine.lanes(element), min(rows, columns)
    narrow = 1 < few <= NARROW
    kernel = (
        library.narrow_item(element, lanes, few, columns == few)
        if narrow
        else library.matrix_item(element, lanes, True)
    )
    chunk = STRETCH if narrow else CHUNK
    _move(
        {
            "source": source,
            "target": target,
            "source_outer": rows * columns * size,
            "target_outer": rows * columns * size,
            "source_row": columns * size,
            "target_row": rows * size,
            "rows": rows,
            "columns": columns,
            "row_chunk": chunk,
            "column_chunk": chunk,
            "target_i": chunk * size,
            "target_j": chunk * rows * size,
        },
        outer * -(-rows // chunk) * -(-columns // chunk),
        kernel.address,
        workers,
    )


def _move(fields: dict[str, Any], items: int, kernel: int, workers: int) -> None:
    job = records.Matrix(**fields)
    threads.run(kernel, job.address, items, 0, 0, workers)
