"""The table that dispatch reads, `lrw_kernels/triton/speedups.csv`, with what was measured in place of predictions."""

import csv
import io
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from statistics import geometric_mean
from typing import Any, get_args

from bench.gpu.rows import PRECISIONS, Row
from lrw import files
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.triton.speedups import Kind, Speedup, parse, table
from lrw_kernels.winograd import Tile

KINDS = get_args(Kind)  # in the file's order, as the precisions are


def measured(rows: Sequence[Row], device: str, date: str) -> list[Speedup]:
    """Of forward passes and training in a stream of calls, by the tile that `tile="auto"` takes; layers with as many
    channels are one row, their geometric mean."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        if row.kind in KINDS and row.speedup and row.cin and row.cout and row.columns and row.tile == _automatic(row):
            key = row.kind, row.precision, isqrt(row.cin * row.cout), row.columns
            groups.setdefault(key, []).append(row.speedup)
    name = device.removeprefix("NVIDIA ")
    return [Speedup(*key, geometric_mean(values), name, date) for key, values in groups.items()]


def _automatic(row: Row) -> str:
    """The name of the tile that `lrw.ops.winograd_conv3d` takes for the layer of a row on a GPU, if it may."""
    if row.precision != "ieee":
        return Tile.of(2).name
    d, h, w = map(int, row.size.split("x"))
    return cheapest_tile((3, 3, 3), row.cin or 0, row.cout or 0, (d, h, w)).name


def merged(old: Sequence[Speedup], new: Sequence[Speedup]) -> list[Speedup]:
    """All of both, `new` where both have a row, in the file's order."""
    by_key = {row[:4]: row for row in (*old, *new)}

    def place(row: Speedup) -> tuple[float, ...]:
        return KINDS.index(row.kind), PRECISIONS.index(row.precision), row.channels, -row.columns

    return sorted(by_key.values(), key=place)


def text(rows: Sequence[Speedup]) -> str:
    """The file."""
    lines = [",".join(Speedup._fields)]
    lines += [
        f"{r.kind},{r.precision},{r.channels:g},{r.columns:.2f},{r.speedup:.2f},{r.device},{r.date}" for r in rows
    ]
    return "\n".join(lines) + "\n"


def known(path: Path) -> Sequence[Speedup]:
    """The rows of a file, and of the table in use what it lacks. Raises ValueError for a file of something else."""
    if not path.is_file():
        return merged(table(), [])
    lines = csv.DictReader(io.StringIO(path.read_text()))
    if lines.fieldnames != list(Speedup._fields):
        raise ValueError(f"no table of {', '.join(Speedup._fields)}")
    return merged(table(), parse(lines))


def rewrite(path: Path, rows: Sequence[Row], device: str, date: str) -> int:
    """Put what was measured into the file, whole or not at all; returns how many rows that were."""
    new = measured(rows, device, date)
    content = text(merged(known(path), new))
    with files.whole(path) as partial:
        partial.write_text(content)
    return len(new)
