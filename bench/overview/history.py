"""Results of other commits, out of git: what a file held at one of them, and at all that changed it."""

import csv
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.rows import AnyRow, parse

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Version:
    """A commit by its short name, and the day it was made."""

    commit: str
    day: str


def versions(path: Path) -> list[Version]:
    """The commits that changed a file, oldest first; none where git does not know it."""
    said = _git("log", "--reverse", "--format=%h %as", "--", str(path)) or ""
    return [Version(*line.split()) for line in said.splitlines()]


def rows(kind: type[AnyRow], path: Path, commit: str) -> list[AnyRow]:
    """The rows of a file as it was at `commit`; none where it was not there, or had other columns then."""
    text = _git("show", f"{commit}:{path.resolve().relative_to(ROOT).as_posix()}")
    try:
        return [parse(kind, line) for line in csv.DictReader((text or "").splitlines())]
    except (KeyError, TypeError, ValueError):
        return []


def resolved(ref: str) -> str:
    """The short name of the commit that `ref` is. Raises ValueError where it is none."""
    said = _git("rev-parse", "--verify", "--short", "--end-of-options", f"{ref}^{{commit}}")
    if said is None:
        raise ValueError(f"{ref!r} is no commit here")
    return said.strip()


def _git(*arguments: str) -> str | None:
    """What git says of this repository; None where it says that something is wrong, or is not there."""
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
