"""How much faster than direct convolution a layer is on a GPU: `speedups.csv`, measured by `bench.gpu --table`.

Rows without a date are not measured but predicted, by a model of memory, tensor cores and instructions. Layers are told
apart by the geometric mean of their channels, the share of columns, the precision and what is computed: sizes hardly
matter where tiles fill the GPU.
"""

import csv
from collections.abc import Iterable
from functools import lru_cache
from math import inf, log2, sqrt
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

from lrw_kernels.triton.precision import Precision

Kind = Literal["forward", "training"]
TABLE = Path(__file__).with_name("speedups.csv")


class Speedup(NamedTuple):
    """Of one row: kind (forward: a pass whose U is ready; training: forward and both gradients of a layer with spatial
    weights), precision, channels, share of columns; how many times faster; on what, when (empty: predicted)."""

    kind: Kind
    precision: Precision
    channels: float
    columns: float
    speedup: float
    device: str
    date: str

    @property
    def source(self) -> str:
        """Where the number is from."""
        return f"measured on {self.device}, {self.date}" if self.date else f"predicted for {self.device}, not measured"


def expected(kind: Kind, precision: Precision, cin: int, cout: int, columns: float = 1.0) -> Speedup:
    """The row of that kind next to such a layer, on logarithmic scales: first by share of columns, then by channels."""
    channels = sqrt(cin * cout)

    def distance(row: Speedup) -> tuple[float, float]:
        return abs(log2(row.columns / columns)), abs(log2(row.channels / channels))

    return min((row for row in table() if row[:2] == (kind, precision)), key=distance)


@lru_cache(maxsize=1)
def table() -> tuple[Speedup, ...]:
    """All rows."""
    with TABLE.open(newline="") as file:
        return tuple(parse(csv.DictReader(file)))


def parse(rows: Iterable[dict[str, str]]) -> list[Speedup]:
    """Rows of the file's columns. Raises ValueError for others."""
    return [_parsed(row) for row in rows]


def _parsed(row: dict[str, str]) -> Speedup:
    if set(row) != set(Speedup._fields) or None in row.values():
        raise ValueError(f"line {list(row.values())} is not {', '.join(Speedup._fields)}")
    kind, precision = row["kind"], row["precision"]
    numbers = channels, columns, speedup = [float(row[name]) for name in ("channels", "columns", "speedup")]
    if kind not in get_args(Kind) or precision not in get_args(Precision) or not all(0 < n < inf for n in numbers):
        raise ValueError(f"no such row: {', '.join(row.values())}")
    return Speedup(cast(Kind, kind), cast(Precision, precision), channels, columns, speedup, row["device"], row["date"])
