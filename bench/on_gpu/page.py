"""The tables of docs/gpu.md: results out of the committed CSV, and what is possible."""

from collections.abc import Sequence
from itertools import product

from bench.on_gpu.bars import Bar, bars
from bench.on_gpu.floors import ASSUMED, Pass, direct, least
from bench.on_gpu.layers import LAYERS, PRECISIONS, SHARES, Layer
from bench.on_gpu.rows import CERTIFICATE, Row, read
from bench.on_gpu.table import groups
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

NOTHING = "Nothing was measured yet: the kernels ran in Triton's interpreter and were compiled, but on no GPU."
_UNITS = {"copy": "TB/s copied"}
_HEAD = "| layer | precision | tile | cuDNN ms | " + " | ".join(f"{s:.0%} of columns" for s in SHARES) + " | error |"


def table(lines: Sequence[dict[str, str]]) -> str:
    """Markdown of the CSV's lines: forward passes, bars, where the numbers come from; or that there are none."""
    rows = read(lines)
    if not any(row.ms is not None for row in rows):
        return NOTHING
    notes = [f"{row.kind} {row.layer} {row.precision}: {row.note}." for row in rows if row.note]
    parts = [*_passes(rows), "", *_bars(bars(rows)), "", *notes, *_stamps(lines)]
    return "\n".join(parts)


def _passes(rows: Sequence[Row]) -> list[str]:
    found = [_HEAD, "| --- " * _HEAD.count(" | ") + "| --- |"]
    for group in groups([row for row in rows if row.kind == "forward"]):
        first, own = group[0], {row.columns: row for row in group}
        cells = [_faster(own.get(share)) for share in SHARES]
        worst = max((row.error for row in group if row.error is not None), default=None)
        size = f"{first.layer} {first.cin}->{first.cout} at {first.size}"
        cudnn = "" if first.cudnn_ms is None else f"{first.cudnn_ms:.3f} {first.cudnn_form}"
        error = "" if worst is None else f"{worst:.1e}"
        found.append(f"| {size} | {first.precision} | {first.tile} | {cudnn} | {' | '.join(cells)} | {error} |")
    return found


def _faster(row: Row | None) -> str:
    if row is None or row.ms is None or row.speedup is None:
        return ""
    return f"{row.speedup:.2f}x" + ("" if row.floor_ms is None else f" ({row.floor_ms / row.ms:.0%})")


def _bars(found: Sequence[Bar]) -> list[str]:
    lines = [f"| {bar.text} | {bar.limit} | {bar.answer} | {bar.details} |" for bar in found]
    return ["| bar | wanted | measured | |", "| --- | --- | --- | --- |", *lines]


def _stamps(lines: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(" | ".join(line[name] for name in CERTIFICATE) + "." for line in lines))


def floors(lines: Sequence[dict[str, str]]) -> str:
    """Markdown of the least milliseconds of forward passes, by what the CSV's lines tell of a GPU, else by ASSUMED."""
    measured = {row.precision or row.layer: row.rate for row in read(lines) if row.kind == "ceiling" and row.rate}
    ceilings = {**ASSUMED, **measured}
    found = ["| layer | precision | tile | direct | " + " | ".join(f"{s:.0%} of columns" for s in SHARES) + " |"]
    found.append("| --- " * (4 + len(SHARES)) + "|")
    for layer, precision in product(LAYERS, PRECISIONS):
        tiles = (2, 4) if precision == "ieee" else (2,)
        found += [_floors(layer, precision, Tile.of(outputs), ceilings) for outputs in tiles]
    rates = {name: f"{rate / 1e12:.3g} {_UNITS.get(name, f'TFLOP/s ({name})')}" for name, rate in ceilings.items()}
    assumed = [rates[name] for name in ceilings if name not in measured]
    said = [f"Assumed, not measured: {', '.join(assumed)}."] if assumed else []
    said += [f"Measured: {', '.join(rates[name] for name in measured)}.", *_stamps(lines)] if measured else []
    return "\n".join([*found, "", *said])


def _floors(layer: Layer, precision: Precision, tile: Tile, ceilings: dict[str, float]) -> str:
    theirs = direct(layer, precision, ceilings)
    ours = [least(Pass("forward", layer, tile, share, precision), ceilings) or 0.0 for share in SHARES]
    cells = " | ".join(f"{ms:.3f} ({theirs / ms:.2f}x)" for ms in ours)
    return f"| {layer.title} | {precision} | {tile.name} | {theirs:.3f} | {cells} |"
