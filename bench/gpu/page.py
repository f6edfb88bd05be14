"""The tables of docs/gpu.md, and of the terminal: what was measured, and what is possible."""

from collections.abc import Sequence
from itertools import product

from bench import page
from bench.gpu.bars import bars
from bench.gpu.floors import ASSUMED, Pass, direct, least
from bench.gpu.rows import PRECISIONS, Row
from bench.layers import GPU, SHARES, Layer
from bench.page import number
from bench.rows import CERTIFICATE, stamps
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

NOTHING = "Nothing was measured yet: the kernels ran in Triton's interpreter and were compiled, but on no GPU."
_UNITS = {"copy": "TB/s copied"}
_SHARES = tuple(f"{share:.0%} of columns" for share in SHARES)


def table(rows: Sequence[Row]) -> list[str]:
    """Forward passes, bars, where the numbers come from; or that there are none."""
    if not any(row.ms is not None for row in rows):
        return [NOTHING]
    return [*passes(rows, "forward"), "", *bar_table(rows), "", *notes(rows), *_made(rows)]


def passes(rows: Sequence[Row], kind: str) -> list[str]:
    """Passes of one kind, rows of one layer, tile and precision together."""
    groups: dict[tuple[str, str, str], dict[float | None, Row]] = {}
    for row in (row for row in rows if row.kind == kind):
        groups.setdefault((row.precision, row.layer, row.tile), {})[row.columns] = row
    lines = []
    for group in groups.values():
        first, errors = next(iter(group.values())), [row.error for row in group.values() if row.error is not None]
        title = f"{first.layer} {first.cin}->{first.cout} at {first.size}"
        cudnn = number(first.cudnn_ms, ".3f", f" {first.cudnn_form}")
        faster = [_faster(group.get(share)) for share in SHARES]
        lines.append([title, first.precision, first.tile, cudnn, *faster, number(max(errors, default=None), ".1e")])
    return page.table(("layer", "precision", "tile", "cuDNN ms", *_SHARES, "error"), lines)


def bar_table(rows: Sequence[Row]) -> list[str]:
    """Every bar and its answer."""
    lines = [(bar.text, bar.limit, bar.answer, bar.details) for bar in bars(rows)]
    return page.table(("bar", "wanted", "measured", ""), lines)


def notes(rows: Sequence[Row]) -> list[str]:
    """Why rows have no numbers."""
    found = [([row.kind, row.layer, row.precision, number(row.columns, ".0%")], row.note) for row in rows if row.note]
    return [f"{' '.join(filter(None, words))}: {note}." for words, note in found]


def floors(rows: Sequence[Row]) -> list[str]:
    """The least milliseconds of forward passes, by what the rows tell of a GPU, else by ASSUMED."""
    measured = {row.precision or row.layer: row.rate for row in rows if row.kind == "ceiling" and row.rate}
    ceilings = {**ASSUMED, **measured}
    lines = [
        _floors(layer, precision, Tile.of(outputs), ceilings)
        for layer, precision in product(GPU, PRECISIONS)
        for outputs in ((2, 4) if precision == "ieee" else (2,))
    ]
    rates = {name: f"{rate / 1e12:.3g} {_UNITS.get(name, f'TFLOP/s ({name})')}" for name, rate in ceilings.items()}
    assumed = [rates[name] for name in ceilings if name not in measured]
    said = [f"Assumed, not measured: {', '.join(assumed)}."] if assumed else []
    said += [f"Measured: {', '.join(rates[name] for name in measured)}.", *_made(rows)] if measured else []
    return [*page.table(("layer", "precision", "tile", "direct", *_SHARES), lines), "", *said]


def _faster(row: Row | None) -> str:
    if row is None or row.ms is None or row.speedup is None:
        return ""
    return f"{row.speedup:.2f}x" + ("" if row.floor_ms is None else f" ({row.floor_ms / row.ms:.0%})")


def _made(rows: Sequence[Row]) -> list[str]:
    return [" | ".join(getattr(row, name) for name in CERTIFICATE) + "." for row in stamps(rows)]


def _floors(layer: Layer, precision: Precision, tile: Tile, ceilings: dict[str, float]) -> list[str]:
    theirs = direct(layer, precision, ceilings)
    ours = [least(Pass("forward", layer, tile, share, precision), ceilings) or 0.0 for share in SHARES]
    cells = [f"{ms:.3f} ({theirs / ms:.2f}x)" for ms in ours]
    return [layer.title, precision, tile.name, f"{theirs:.3f}", *cells]
