"""The rows of all benches: dataclasses in CSV files, each row with commit, machine, versions and date."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, get_args

from bench import certificate


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every row says of itself; a bench's own columns come before. Fields are texts, numbers, or None."""

    commit: str = field(default="", compare=False)
    machine: str = field(default="", compare=False)
    versions: str = field(default="", compare=False)
    date: str = field(default="", compare=False)


AnyRow = TypeVar("AnyRow", bound=Row)
CERTIFICATE = tuple(f.name for f in fields(Row))


def names(kind: type[Row]) -> list[str]:
    """The columns of the file of such rows."""
    return [*(f.name for f in fields(kind) if f.name not in CERTIFICATE), *CERTIFICATE]


def parse(kind: type[AnyRow], line: dict[str, str]) -> AnyRow:
    """The row of a CSV line; columns that the file has not got keep their defaults. Raises KeyError, TypeError or
    ValueError for other lines."""
    return kind(**{f.name: _value(f.type, line[f.name]) for f in fields(kind) if f.name in line})


def read(kind: type[AnyRow], path: Path) -> list[AnyRow]:
    """The rows of a file; none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [parse(kind, line) for line in csv.DictReader(file)]


def stamped(row: AnyRow, stamp: Mapping[str, str]) -> AnyRow:
    """The row with that certificate and with numbers to five digits, which is more than they are worth."""
    numbers = {k: float(f"{v:.5g}") for k, v in asdict(row).items() if isinstance(v, float)}
    return replace(row, **numbers, **stamp)


class Writer:
    """A CSV of rows, on the disk after each call; with no path, nothing is written. A context manager.

    What is in the file stays until there is a first row, and beyond where rows are to be added.
    """

    def __init__(self, path: Path | None, stamp: dict[str, str] | None = None, *, add: bool = False) -> None:
        """Raises OSError where the file cannot be written."""
        self._file = None if path is None else path.open("a+", newline="")
        self._header = self._known() if add else []
        self._lines: csv.DictWriter[str] | None = None
        self._stamp = certificate.stamp() if stamp is None else stamp

    def write(self, *rows: Row) -> None:
        """Rows of one kind, together."""
        if self._file is None:
            return
        if self._lines is None:
            self._lines = csv.DictWriter(self._file, self._header or names(type(rows[0])), extrasaction="ignore")
            if not self._header:
                self._file.truncate(0)
                self._lines.writeheader()
        self._lines.writerows(asdict(stamped(row, self._stamp)) for row in rows)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _known(self) -> list[str]:
        """The columns that are there."""
        assert self._file is not None
        self._file.seek(0)
        return next(csv.reader(self._file), [])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def made(rows: Sequence[Row]) -> tuple[str, str]:
    """What rows were made of and on, and when, for the foot of a table."""
    commits, dates = (", ".join(dict.fromkeys(getattr(row, name) for row in rows)) for name in ("commit", "date"))
    parts = [f"commit {commits}" if commits else "", rows[0].machine, rows[0].versions]
    return " | ".join(filter(None, parts)), dates


def stamps(rows: Iterable[Row]) -> list[Row]:
    """The first row of each different certificate, in order."""
    found: dict[tuple[str, ...], Row] = {}
    for row in rows:
        found.setdefault(tuple(getattr(row, name) for name in CERTIFICATE), row)
    return list(found.values())


def _value(kind: Any, text: str) -> Any:
    """`text` as a field of that type has it."""
    kinds = get_args(kind) or (kind,)
    return None if type(None) in kinds and not text else kinds[0](text)
