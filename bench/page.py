"""Tables of pages, and of the terminal: Markdown out of cells."""

import re
from collections.abc import Iterable, Sequence

Cells = Sequence[str]


def table(head: Cells, lines: Iterable[Cells]) -> list[str]:
    """The lines of a table."""
    return [_line(head), f"|{' --- |' * len(head)}", *map(_line, lines)]


def tight(lines: Iterable[str]) -> list[str]:
    """The same lines with one space in empty cells."""
    return [re.sub(r"\|  (?=\|)", "| ", line) for line in lines]


def aligned(lines: Iterable[str]) -> list[str]:
    """The lines of a table for a terminal: columns of one width each, the first to the left, empty ones left out."""
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    columns = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    cells = [(row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])) for row in zip(*columns, strict=True)]
    return ["  ".join(row).rstrip() for row in cells]


def number(value: float | None, how: str, unit: str = "") -> str:
    """A number as text, nothing for none."""
    return "" if value is None else f"{value:{how}}{unit}"


def _line(cells: Cells) -> str:
    return f"| {' | '.join(cells)} |"
