"""The table that dispatch reads, `lrw_kernels/triton/speedups.csv`, with what was measured in place of predictions."""

import csv
import io
from collections.abc import Sequence
from math import isqrt
from pathlib import Path
from statistics import geometric_mean

from bench.on_gpu.rows import Row
from lrw_kernels.triton.speedups import Speedup, parse, table

KINDS, PRECISIONS = ("forward", "training"), ("half", "tf32", "ieee")  # in the file's order


def measured(rows: Sequence[Row], device: str, date: str) -> list[Speedup]:
    """Of forward passes and training in a stream of calls, each layer by its faster tile, as `tile="auto"` would have
    it; layers with as many channels are one row, their geometric mean."""
    layers: dict[tuple[str, str, int, float, str], float] = {}
    for row in rows:
        if row.kind in KINDS and row.speedup and row.cin and row.cout and row.columns:
            key = row.kind, row.precision, isqrt(row.cin * row.cout), row.columns, row.layer
            layers[key] = max(row.speedup, layers.get(key, 0.0))
    groups: dict[tuple[str, str, int, float], list[float]] = {}
    for (*key, _), speedup in layers.items():
        groups.setdefault(tuple(key), []).append(speedup)  # type: ignore[arg-type]
    name = device.removeprefix("NVIDIA ")
    return [Speedup(*key, geometric_mean(values), name, date) for key, values in groups.items()]


def merged(old: Sequence[Speedup], new: Sequence[Speedup]) -> list[Speedup]:
    """All of both, `new` where both have a row, in the file's order."""
    by_key = {row[:4]: row for row in (*old, *new)}
    order = {name: i for i, name in enumerate((*KINDS, *PRECISIONS))}

    def place(row: Speedup) -> tuple[float, ...]:
        return order.get(row.kind, len(order)), order.get(row.precision, len(order)), row.channels, -row.columns

    return sorted(by_key.values(), key=place)


def text(rows: Sequence[Speedup]) -> str:
    """The file."""
    lines = [",".join(Speedup._fields)]
    lines += [
        f"{r.kind},{r.precision},{r.channels:g},{r.columns:.2f},{r.speedup:.2f},{r.device},{r.date}" for r in rows
    ]
    return "\n".join(lines) + "\n"


def known(path: Path) -> Sequence[Speedup]:
    """The rows of a file, those of the table in use where there is no file. Raises KeyError or ValueError for a file of
    something else."""
    return parse(lines(path, Speedup._fields)) if path.is_file() else table()


def lines(path: Path, names: Sequence[str]) -> "csv.DictReader[str]":
    """Those of a table with columns of these names. Raises ValueError for others."""
    found = csv.DictReader(io.StringIO(path.read_text()))
    if found.fieldnames != list(names):
        raise ValueError(f"{path}: no table of {', '.join(names)}")
    return found


def rewrite(path: Path, rows: Sequence[Row], device: str, date: str) -> int:
    """Put what was measured into the file, whole or not at all; returns how many rows that were.

    A file that is new has the rows of the table in use besides.
    """
    old = known(path)
    new = measured(rows, device, date)
    replace_file(path, text(merged(old, new)))
    return len(new)


def replace_file(path: Path, content: str) -> None:
    """Write a file, whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(content)
    draft.replace(path)
