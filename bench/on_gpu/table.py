"""Rows as tables for the terminal, the bars last."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from bench.on_gpu.bars import bars
from bench.on_gpu.layers import SHARES
from bench.on_gpu.rows import Row

WIDTH = 118  # columns of text they need
PASSES = {
    "graph_weight_grad": "gradient of the weights in a CUDA graph",
    "graph_input_grad": "gradient of the input in a CUDA graph",
    "graph": "forward pass in a CUDA graph",
    "training": "forward pass and both gradients of spatial weights",
    "weight_grad": "gradient of the weights",
    "input_grad": "gradient of the input",
    "forward": "forward pass",
}
STAGES = ("gather", "products", "bmm", "scatter", "fused", "gather_dy", "weight_sums")


def tables(rows: Sequence[Row]) -> Iterator[Table]:
    """Those that have rows, the most important last, for terminals and logs that keep the end; the bars behind them."""
    makers = {
        ("sweep",): _sweep,
        ("workspace",): _workspaces,
        STAGES: _stages,
        ("memory",): _memory,
        **{(kind,): _passes for kind in PASSES},
        ("step",): _steps,
        ("ceiling",): _ceilings,
    }
    for kinds, make in makers.items():
        if own := [row for row in rows if row.kind in kinds]:
            yield make(own)
    if not any(row.kind == "sweep" for row in rows):
        yield _bars(rows)


def notes(rows: Sequence[Row]) -> list[str]:
    """Why rows have no numbers."""
    return [f"{row.kind} {row.layer} {row.precision} {_share(row)}: {row.note}" for row in rows
            if row.note and row.kind != "refused"]  # fmt: skip


def groups(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one layer, tile and precision together."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.precision, row.layer, row.tile), []).append(row)
    return list(found.values())


def _ceilings(rows: Sequence[Row]) -> Table:
    made = _table("ceilings", "", "measured")
    for row in rows:
        unit = "TB/s" if row.layer == "copy" else "TFLOP/s"
        made.add_row(f"{row.layer} {row.precision}", _number(row.rate, ".2f", 1e12, unit))
    return made


def _passes(rows: Sequence[Row]) -> Table:
    made = _table(
        f"{PASSES[rows[0].kind]}: ms, times as fast, and share of the floor",
        "layer",
        "tile",
        "cuDNN",
        *(f"{s:.0%}" for s in SHARES),
        "error",
    )
    for group in groups(rows):
        first, own = group[0], {row.columns: row for row in group}
        cells = [_faster(own.get(share)) for share in SHARES]
        worst = max((row.error for row in group if row.error is not None), default=None)
        cudnn = f"{_number(first.cudnn_ms, '.3f')} {first.cudnn_form}"
        made.add_row(f"{first.layer} {first.precision}", first.tile[2:7], cudnn, *cells, _number(worst, ".1e"))
    return made


def _stages(rows: Sequence[Row]) -> Table:
    made = _table("stages: ms, and share of the ceiling", "layer", "columns", *STAGES)
    shares = {(row.precision, row.layer, row.columns): "" for row in rows}
    for precision, layer, columns in shares:
        own = {row.kind: row for row in rows if (row.precision, row.layer, row.columns) == (precision, layer, columns)}
        cells = [_stage(own.get(kind)) for kind in STAGES]
        made.add_row(f"{layer} {precision}", f"{columns:.0%}", *cells)
    return made


def _memory(rows: Sequence[Row]) -> Table:
    made = _table("a layer's training step: MiB", "layer", "cuDNN", *(f"{s:.0%}" for s in SHARES))
    for group in groups(rows):
        own = {row.columns: row.mib for row in group}
        cells = [_number(own.get(share), ".0f") for share in SHARES]
        made.add_row(f"{group[0].layer} {group[0].precision}", _number(group[0].cudnn_mib, ".0f"), *cells)
    return made


def _sweep(rows: Sequence[Row]) -> Table:
    made = _table("configurations of kernels: ms", "kernel", "in use", "", "fastest", "", "times as fast")
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row.ms is not None:
            found.setdefault((row.form.partition(" ")[0], row.layer, row.precision), []).append(row)
    for (kernel, layer, precision), own in found.items():
        used, best = own[0], min(own, key=lambda row: row.ms or 0.0)
        cells = [text for row in (used, best) for text in (row.form.partition(" ")[2], _number(row.ms, ".4f"))]
        made.add_row(f"{kernel} {layer} {precision}", *cells, _number((used.ms or 0.0) / (best.ms or 1.0), ".2f"))
    return made


def _workspaces(rows: Sequence[Row]) -> Table:
    forms = list(dict.fromkeys(row.form for row in rows))
    made = _table("forward passes in CUDA graphs, by workspace: ms", "layer", *forms)
    for group in groups(rows):
        own = {row.form: row.ms for row in group}
        made.add_row(f"{group[0].layer} {group[0].precision}", *(_number(own.get(form), ".3f") for form in forms))
    return made


def _steps(rows: Sequence[Row]) -> Table:
    made = _table("training step of R3D-18, bfloat16", "columns", "ours", "cuDNN", "times as fast", "MiB", "cuDNN")
    for row in rows:
        times = [_number(row.ms, ".2f"), _number(row.cudnn_ms, ".2f"), _number(row.speedup, ".2f")]
        made.add_row(f"{_share(row)} {row.form}", *times, _number(row.mib, ".0f"), _number(row.cudnn_mib, ".0f"))
    return made


def _bars(rows: Sequence[Row]) -> Table:
    made = _table("bars", "", "wanted", "measured", "")
    for bar in bars(rows):
        made.add_row(bar.text, bar.limit, bar.answer, bar.details)
    return made


def _table(title: str, first: str, *others: str) -> Table:
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column(escape(first), overflow="fold")
    for name in others:
        made.add_column(escape(name), justify="right", overflow="fold")
    return made


def _faster(row: Row | None) -> str:
    if row is None or row.ms is None:
        return "failed" if row is not None and row.note else "-"
    floor = "" if row.floor_ms is None else f" {row.floor_ms / row.ms:.0%}"
    return f"{row.ms:.3f} {_number(row.speedup, '.2f')}x{floor}"


def _stage(row: Row | None) -> str:
    return "-" if row is None or row.ms is None else f"{row.ms:.3f} {_number(row.of_ceiling, '.0%')}"


def _share(row: Row) -> str:
    return "" if row.columns is None else f"{row.columns:.0%}"


def _number(value: float | None, form: str, unit: float = 1.0, name: str = "") -> str:
    return "-" if value is None else f"{value / unit:{form}} {name}".rstrip()
