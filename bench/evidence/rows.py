"""What is written down: a row for each network trained, whole chains or nothing."""

import csv
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numba
import torch

from bench.certificate import commit, today
from lrw.version import __version__


@dataclass(frozen=True)
class Row:
    """One network on one task: how much is gone, how well it does, what it costs.

    removed: share asked for; kept: share of the Winograd layers' weights there is; value: the task's metric on the test
    split, of the compressed network as loaded from its file; trainable (domain: in Winograd layers only) and total
    parameters while it was trained; stored: bytes of the file; multiplies: a sample's in all Winograd layers, as the
    compressed network computes them.
    """

    setting: str
    task: str
    method: str
    seed: int
    removed: float
    kept: float
    metric: str
    value: float
    trainable: int
    domain: int
    parameters: int
    stored: int
    multiplies: int
    seconds: float

    @property
    def chain(self) -> tuple[str, str, str, int]:
        """What it belongs to: setting, task, method, seed."""
        return self.setting, self.task, self.method, self.seed


CERTIFICATE = ("commit", "versions", "date")


def append(path: Path, rows: Sequence[Row]) -> None:
    """Add a chain's rows to the file, which is begun where it is not there."""
    stamp = dict(zip(CERTIFICATE, (commit(), versions(), today()), strict=True))
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*(f.name for f in fields(Row)), *CERTIFICATE])
        if new:
            writer.writeheader()
        writer.writerows({**asdict(row), **stamp} for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[Row]:
    """The rows of a file. Raises FileNotFoundError where there is none."""
    with path.open(newline="") as file:
        return [_row(values) for values in csv.DictReader(file)]


def stamps(path: Path) -> list[dict[str, str]]:
    """The different certificates in a file, in order."""
    with path.open(newline="") as file:
        found = [tuple(values[name] for name in CERTIFICATE) for values in csv.DictReader(file)]
    return [dict(zip(CERTIFICATE, stamp, strict=True)) for stamp in dict.fromkeys(found)]


def select(rows: Iterable[Row], task: str, method: str, removed: float) -> list[Row]:
    """The rows of all seeds, in their order."""
    chosen = [r for r in rows if (r.task, r.method, r.removed) == (task, method, removed)]
    return sorted(chosen, key=lambda r: r.seed)


def versions() -> str:
    """Python, torch, numba, lrw."""
    return (
        f"python {platform.python_version()}, torch {torch.__version__}, numba {numba.__version__}, lrw {__version__}"
    )


def _row(values: dict[str, str]) -> Row:
    return Row(**{f.name: f.type(values[f.name]) for f in fields(Row)})  # type: ignore[operator]
