"""Rows of this library and of its peers side by side, as a table of a page or for the terminal."""

from collections.abc import Sequence
from dataclasses import replace

from bench import page
from bench.arm.rows import Row
from bench.page import number
from bench.rows import made

CORES = ("a55", "n1", "x1")
NETWORK, NETWORK_LAYERS, WHOLE = "c3d", 8, "whole-c3d"
_HEAD = ("layer", "library", "columns", "instructions", "of MNN's", "A55", "N1", "X1", "L2 misses", "error")
Rows = Sequence[Row]


def table(ours: Rows, peers: Rows) -> list[str]:
    """Each layer's rows, ours first, then all of C3D beside sums over its layers of whoever has all of them; what could
    not be had, and where the numbers come from, below. Either may be empty."""
    rows = [*ours, *peers]
    whole = [row for row in rows if row.layer == WHOLE]
    found = lines([*(row for row in rows if row.layer != WHOLE), *whole, *_sums(rows)])
    if not ours:
        at = found.index("") + 1
        found[at:at] = ["This library's own rows are not measured yet."]
    stamps = [f"{who}: {' | '.join(made(of))}." for who, of in (("lrw", ours), ("Others", peers)) if of]
    return [*found, *stamps]


def lines(rows: Rows) -> list[str]:
    """The table alone, rows of a layer together, and below it why rows have no numbers."""
    counted = [row for row in rows if row.per_mac is not None]
    groups: dict[str, list[Row]] = {}
    for row in counted:
        groups.setdefault(NETWORK if _is_network(row) else row.layer, []).append(row)
    cells = [line for group in groups.values() for line in _cells(group)]
    notes = [f"{row.layer}, {row.name}: {row.note.splitlines()[0]}." for row in rows if row.note]
    return [*page.table(_HEAD, cells), "", *notes]


def _is_network(row: Row) -> bool:
    return row.layer == WHOLE or row.layer.startswith(f"{NETWORK}, ")


def _cells(group: Rows) -> list[list[str]]:
    mnn = next((row.per_mac for row in group if row.library == "mnn"), None)
    titles = [f"{row.layer} {row.cin}->{row.cout} at {row.size}" if row.cin else row.layer for row in group]
    shown = ["" if title == before else title for title, before in zip(titles, ["", *titles], strict=False)]
    return [[title, *_numbers(row, mnn)] for row, title in zip(group, shown, strict=True)]


def _numbers(row: Row, mnn: float | None) -> list[str]:
    share = "" if mnn is None or row.per_mac is None else f"{row.per_mac / mnn:.0%}"
    l2 = "" if row.l2 is None else f"{row.l2 / 1e3:,.0f} k"
    rates = [number(row.rate(core), ".2f") for core in CORES]
    return [row.name, f"{row.share:.0%}", number(row.per_mac, ".3f"), share, *rates, l2, number(row.error, ".1e")]


def _sums(rows: Rows) -> list[Row]:
    """A row for each library and share that has all of the network's layers; the largest of the errors."""
    own = [row for row in rows if row.per_mac is not None and row.layer.startswith(f"{NETWORK}-")]
    kinds = dict.fromkeys((row.library, row.share) for row in own)
    groups = ([row for row in own if (row.library, row.share) == kind] for kind in kinds)
    return [_sum(group) for group in groups if len(group) == NETWORK_LAYERS]


def _sum(rows: Rows) -> Row:
    macs = sum(row.macs for row in rows)
    cycles = {core: _total([rate and row.macs / rate for row in rows for rate in [row.rate(core)]]) for core in CORES}
    rates = {f"mac_per_cycle_{core}": total and macs / total for core, total in cycles.items()}
    errors = [row.error for row in rows if row.error is not None]
    return replace(
        rows[0], **rates, layer=f"{NETWORK}, its {len(rows)} convolutions", cin=0, note="",
        per_mac=sum(row.instructions or 0 for row in rows) / macs, l2=_total([row.l2 for row in rows]),
        error=max(errors, default=None),
    )  # fmt: skip


def _total(values: Sequence[float | None]) -> float | None:
    """The sum, none where one is missing."""
    there = [value for value in values if value is not None]
    return sum(there) if len(there) == len(values) else None
