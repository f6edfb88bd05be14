"""What was measured to be faster than the formulas of `config`: `tuned.csv`.

A row is for kernels of one tile, F(2,3) on each axis, on GPUs of one compute capability, and for channels in multiples
of 16 within a factor of 1.5 of its own. Without a row near enough the formulas hold.
"""

import csv
import re
from collections.abc import Iterable
from functools import cache
from math import log2
from pathlib import Path
from typing import NamedTuple

from lrw_kernels.triton.config import Products, Transform
from lrw_kernels.triton.precision import Precision

TABLE = Path(__file__).with_name("tuned.csv")
TILE = "F(2x2x2, 3x3x3)"
NEAR = log2(1.5)
KERNELS = ("gather", "scatter", "products", "weight_sums", "fused")
CUBLAS, SEPARATE = "cublas", "separate"  # for products, torch.bmm; for "fused", that two kernels do better


class Tuned(NamedTuple):
    """A row: for which kernel, precision, channels in and out and compute capability (90) which configuration, as
    `text` has it; measured on what, when."""

    kernel: str
    precision: str
    cin: int
    cout: int
    config: str
    capability: int
    device: str
    date: str


def find(kernel: str, tile: str, precision: Precision, cin: int, cout: int, capability: int) -> str | None:
    """The configuration of the nearest row for a tile by its name, or None."""
    if tile != TILE:
        return None

    def distance(row: Tuned) -> float:
        return max(abs(log2(row.cin / cin)), abs(log2(row.cout / cout)))

    own = [row for row in table() if row[:2] == (kernel, precision) and row.capability == capability]
    nearest = min(own, key=distance, default=None)
    return None if nearest is None or distance(nearest) > NEAR else nearest.config


@cache
def table() -> tuple[Tuned, ...]:
    """All rows."""
    with TABLE.open(newline="") as file:
        return tuple(parse(csv.DictReader(file)))


def parse(rows: Iterable[dict[str, str]]) -> list[Tuned]:
    """Rows of the file's columns. Raises ValueError for others."""
    found = []
    for row in rows:
        if set(row) != set(Tuned._fields) or None in row.values():
            raise ValueError(f"line {list(row.values())} is not {', '.join(Tuned._fields)}")
        counts = {name: int(row[name]) for name in ("cin", "cout", "capability")}
        found.append(Tuned(**{name: counts.get(name, row[name]) for name in Tuned._fields}))  # type: ignore[arg-type]
        _check(found[-1])
    return found


def _check(row: Tuned) -> None:
    if row.kernel not in KERNELS:
        raise ValueError(f"tuned.csv: {row.kernel!r} is none of {', '.join(KERNELS)}")
    if (row.kernel, row.config) not in (("products", CUBLAS), ("fused", SEPARATE)):
        (transform if row.kernel in ("gather", "scatter") else products)(row.config)


def text(chosen: Transform | Products) -> str:
    """A configuration as the table has it: tiles x channels, or rows x columns x steps; warps, stages."""
    if isinstance(chosen, Transform):
        return f"{chosen.tiles}x{chosen.channels} w{chosen.warps}"
    return f"{chosen.rows}x{chosen.columns}x{chosen.steps} w{chosen.warps} s{chosen.stages}"


def transform(config: str) -> Transform:
    """The inverse of `text`. Raises ValueError for other texts."""
    return Transform(*_numbers(r"(\d+)x(\d+) w(\d+)", config))


def products(config: str) -> Products:
    """The inverse of `text`. Raises ValueError for other texts."""
    return Products(*_numbers(r"(\d+)x(\d+)x(\d+) w(\d+) s(\d+)", config))


def _numbers(pattern: str, config: str) -> list[int]:
    match = re.fullmatch(pattern, config)
    if match is None:
        raise ValueError(f"tuned.csv: {config!r} is no configuration")
    return [int(number) for number in match.groups()]
