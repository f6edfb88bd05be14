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


def number(value: float | None, how: str, unit: str = "") -> str:
    """A number as text, nothing for none."""
    return "" if value is None else f"{value:{how}}{unit}"


def _line(cells: Cells) -> str:
    return f"| {' | '.join(cells)} |"
