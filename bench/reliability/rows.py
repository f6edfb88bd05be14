"""The rows of results/reliability.csv, and the table they make."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench import page, rows

MOST_GROWTH = 0.01  # of a process's memory, once all is warm


@dataclass(frozen=True)
class Row(rows.Row):
    """One run: what was done, for how long, how many cases, how many of them wrong, and the process's memory in MB once
    all was warm and at the end, where it was looked at."""

    what: str
    minutes: float
    cases: int
    wrong: int
    warm_mb: float | None = None
    end_mb: float | None = None

    @property
    def grew(self) -> bool:
        """Whether memory did, by more than MOST_GROWTH."""
        return self.warm_mb is not None and self.end_mb is not None and self.end_mb > (1 + MOST_GROWTH) * self.warm_mb


def table(found: Sequence[Row]) -> list[str]:
    """The last run of each kind."""
    last = {row.what: row for row in found}
    lines = [
        (row.what, f"{row.minutes:.0f}", f"{row.cases:,}", f"{row.wrong:,}", _memory(row), row.date, row.commit)
        for row in last.values()
    ]
    return page.tight(page.table(("what", "minutes", "cases", "wrong", "memory", "date", "commit"), lines))


def _memory(row: Row) -> str:
    if row.warm_mb is None or row.end_mb is None:
        return ""
    return f"{row.warm_mb:,.0f} to {row.end_mb:,.0f} MB ({row.end_mb / row.warm_mb - 1:+.1%})"
