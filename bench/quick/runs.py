"""Runs of before on this machine, each under its commit in bench/runs, which git does not follow: what a run is
compared with, and what its history is made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.overview import history
from bench.overview.sheet import RESULTS
from bench.quick.parts import Part
from bench.quick.running import Done
from bench.rows import Writer, read

FOLDER = Path(__file__).parents[1] / "runs"


def keep(done: Sequence[Done], stamps: Mapping[str, dict[str, str]]) -> None:
    """Write down the rows of each part in place of those of an earlier run of the same commit. Raises OSError."""
    for found in done:
        stamp = stamps[found.part.name]
        folder = _folder(stamp["commit"])
        folder.mkdir(parents=True, exist_ok=True)
        with Writer(_file(found.part, folder), stamp) as writer:
            writer.write(*found.rows)


def before(part: Part, ref: str, machine: str) -> list[Any]:
    """The part's rows at the commit `ref` on `machine`: of a run there, or those that are committed there."""
    sources = [_read(part, _file(part, FOLDER / ref))]
    sources += [history.rows(part.kind, RESULTS / f"{name}.csv", ref) for name in part.files]
    return next((found for rows in sources if (found := [row for row in rows if row.machine == machine])), [])


def past(part: Part, machine: str) -> list[tuple[str, list[Any]]]:
    """The part's rows of every run on `machine`, by commit, in the order in which they ran."""
    files = sorted(FOLDER.glob(f"*/{part.name}.csv"), key=lambda path: path.stat().st_mtime)
    found = [(path.parent.name, [row for row in _read(part, path) if row.machine == machine]) for path in files]
    return [(commit, rows) for commit, rows in found if rows]


def _folder(described: str) -> Path:
    """Of the checkout, by its short name as `--compare` has it, "-dirty" behind it where files were changed."""
    changed = "-dirty" if described.endswith("-dirty") else ""
    try:
        return FOLDER / f"{history.resolved('HEAD')}{changed}"
    except ValueError:
        return FOLDER / described


def _read(part: Part, path: Path) -> list[Any]:
    """Rows of a file; none where it has other columns, as runs of other commits may."""
    try:
        return read(part.kind, path)
    except (KeyError, TypeError, ValueError):
        return []


def _file(part: Part, folder: Path) -> Path:
    return folder / f"{part.name}.csv"
