"""The results section of docs/gpu.md, out of the committed CSV."""

from collections.abc import Sequence

from bench.on_gpu.bars import Bar, bars
from bench.on_gpu.layers import SHARES
from bench.on_gpu.rows import CERTIFICATE, Row, read
from bench.on_gpu.table import groups

NOTHING = "Nothing was measured yet: the kernels ran in Triton's interpreter and were compiled, but on no GPU."
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
        first, own = group[0], {row.columns: row.speedup for row in group}
        cells = ["" if own.get(share) is None else f"{own[share]:.2f}x" for share in SHARES]
        worst = max((row.error for row in group if row.error is not None), default=None)
        size = f"{first.layer} {first.cin}->{first.cout} at {first.size}"
        cudnn = "" if first.cudnn_ms is None else f"{first.cudnn_ms:.3f} {first.cudnn_form}"
        error = "" if worst is None else f"{worst:.1e}"
        found.append(f"| {size} | {first.precision} | {first.tile} | {cudnn} | {' | '.join(cells)} | {error} |")
    return found


def _bars(found: Sequence[Bar]) -> list[str]:
    lines = [f"| {bar.text} | {bar.limit} | {bar.answer} | {bar.details} |" for bar in found]
    return ["| bar | wanted | measured | |", "| --- | --- | --- | --- |", *lines]


def _stamps(lines: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(" | ".join(line[name] for name in CERTIFICATE) + "." for line in lines))
