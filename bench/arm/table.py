"""One layer's rows as a table for the terminal."""

from collections.abc import Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from bench.arm.cycles import MODELS
from bench.arm.rows import Row

WIDTH = 130  # columns of text it needs


def of(rows: Sequence[Row]) -> Table:
    """The rows of one layer, error over the largest output; rows without numbers say why below it."""
    title = f"{rows[0].layer.title}, one thread, fp32\nmodelled: direct MAC/cycle on A55 to X1; missed lines of L1, L2"
    made = Table(title=title, caption=_notes(rows), box=box.SIMPLE)
    made.add_column("library", no_wrap=True)
    for name in ("insn/MAC", "4fma/MAC", *(core.upper() for core in MODELS), "L1", "L2", "error"):
        made.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        made.add_row(_name(row), *_numbers(row))
    return made


def _name(row: Row) -> str:
    return f"{row.library} {row.version}" + (f", {row.share:.0%} kept" if row.share < 1 else "")


def _numbers(row: Row) -> list[str]:
    rates = (row.mac_per_cycle.get(core) for core in MODELS)
    given = [(row.per_mac, ".3f"), (row.fma_per_mac, ".3f"), *((rate, ".2f") for rate in rates)]
    given += [(row.l1, ","), (row.l2, ","), (row.error, ".1e")]
    return ["-" if value is None else format(value, how) for value, how in given]


def _notes(rows: Sequence[Row]) -> str | None:
    return escape("\n".join(f"{_name(row)}: {row.note}" for row in rows if row.note)) or None
