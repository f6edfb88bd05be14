"""The page: HTML that needs nothing else, with its figures inside."""

import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from statistics import geometric_mean
from typing import Any

from bench import networks, pruned, rows, startup
from bench.cpu import inference, training
from bench.evidence import figures
from bench.evidence.results import Results
from bench.overview.compare import HEAD, Comparison

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .75rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 1rem 0; } figcaption, .made { color: #666; font-size: 13px; } svg { max-width: 100%; height: auto; }
"""
COLOURS = ("#2171b5", "#d94801", "#238b45", "#6a51a3", "#c51b8a")


def page(title: str, parts: Iterable[str]) -> str:
    """A whole page of parts made here."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en">{head}\n<h1>{escape(title)}</h1>\n' + "\n".join(parts) + "\n</html>\n"


def networks_part(machines: Mapping[str, Sequence[networks.Row]]) -> list[str]:
    """Whole networks: how many times as fast as their fastest peer, on each machine."""
    bars = {of: {row.network: row.speedup for row in found} for of, found in machines.items() if found}
    if not bars:
        return []
    caption = (
        "Whole networks, accelerated: times as fast as the fastest of torch, torch.compile, OpenVINO, ONNX Runtime."
    )
    tables = [part for of, found in machines.items() if found for part in (f"<h3>{escape(of)}</h3>", _networks(found))]
    return ["<h2>Networks</h2>", _figure(_bars(bars, "times as fast", line=1.0), caption), *tables]


def layers_part(machines: Mapping[str, Sequence[inference.Row]]) -> list[str]:
    """Single layers against the limit of the machine, and against torch, over the columns that are kept."""
    there = {of: found for of, found in machines.items() if found}
    if not there:
        return []
    dense = {of: {r.case: r.of_peak for r in found if r.share == 1.0 and r.of_peak} for of, found in there.items()}
    caption = "Products of dense layers: share of what multiply-adds in registers reach in the same minutes."
    parts = ["<h2>Layers</h2>", _figure(_bars(dense, "of the peak"), caption)]
    for of, found in there.items():
        parts += [f"<h3>{escape(of)}, times as fast as torch, by columns kept</h3>", _layers(found)]
    return parts


def training_part(machines: Mapping[str, Sequence[training.Row]]) -> list[str]:
    """A training step of single layers."""
    head, parts = ("layer", "tile", "torch ms", "lrw ms", "times as fast"), list[str]()
    for of, found in machines.items():
        if found:
            lines = [(r.case, r.tile, f"{r.torch_ms:.3g}", f"{r.lrw_ms:.3g}", f"{r.speedup:.2f}") for r in found]
            mean = ("geometric mean", "", "", "", _mean(r.speedup for r in found))
            parts += [f"<h3>{escape(of)}</h3>", _table(head, [*lines, mean]), _made(found)]
    return ["<h2>A training step</h2>", *parts] if parts else []


def pruning_part(results: Results) -> list[str]:
    """Accuracy against milliseconds, every method."""
    if not results.times:
        return []
    caption = "Pruned networks: what the test samples say against milliseconds at batch 1 (docs/evidence.md)."
    return ["<h2>Accuracy against time</h2>", _figure(figures.against_time(results), caption)]


def pruned_part(found: Sequence[pruned.Row]) -> list[str]:
    """Whole networks with few of their columns, beside all of them."""
    if not found:
        return []
    bars = {
        "all columns": {row.network: row.torch_ms / row.dense_ms for row in found},
        f"{found[0].removed:.0%} removed": {row.network: row.torch_ms / row.pruned_ms for row in found},
    }
    caption = "Whole networks with columns removed at random: times as fast as torch (contiguous); speed alone."
    head = ("network", "layers", "torch ms", "dense ms", "pruned ms", "times as fast as dense", "largest error")
    lines = [
        (r.network, f"{r.layers}", f"{r.torch_ms:.3g}", f"{r.dense_ms:.3g}", f"{r.pruned_ms:.3g}", f"{r.speedup:.2f}",
         f"{r.error:.0e}")
        for r in found
    ]  # fmt: skip
    figure = _figure(_bars(bars, "times as fast as torch", line=1.0), caption)
    return ["<h2>Pruned networks</h2>", figure, _table(head, lines), _made(found)]


def startup_part(found: Sequence[startup.Row]) -> list[str]:
    """What a new process waits for."""
    if not found:
        return []
    lines = [(r.case, f"{r.seconds:.2f}", f"{r.torch_s:.2f}", f"{r.processes}") for r in found]
    table = _table(("a new process", "s", "import torch, s", "processes"), lines)
    return ["<h2>Start-up</h2>", table, _made(found)]


def history_part(of: str, versions: Sequence[tuple[str, Sequence[networks.Row]]]) -> list[str]:
    """The same networks at each commit whose results are known, oldest first."""
    known = [(commit, {row.network: row.speedup for row in rows}) for commit, rows in versions if rows]
    if len(known) < 2:
        return []
    figure, ax = _axes()
    names = list(dict.fromkeys(name for _, speedups in known for name in speedups))
    for i, name in enumerate(names):
        points = [(at, speedups[name]) for at, (_, speedups) in enumerate(known) if name in speedups]
        ax.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1, label=name,
                color=COLOURS[i % len(COLOURS)], linestyle=("-", "--", ":")[i // len(COLOURS) % 3])  # fmt: skip
    ax.set_xticks(range(len(known)), [commit for commit, _ in known], rotation=60, fontsize=7)
    ax.set_ylabel("times as fast as the fastest peer")
    figure.legend(loc="outside right upper", fontsize=7)
    return [f"<h3>{escape(of)}</h3>", _figure(figure, "Networks at the commits of their results.")]


def comparison_part(of: str, ref: str, found: Comparison) -> list[str]:
    """What changed since another commit."""
    if not found.changes:
        return [f"<p>{escape(of)}: {escape(ref)} has no results to compare with.</p>"]
    lines = [change.cells for change in found.changes]
    foot = f'<p class="made">{escape(found.told)}</p>'
    return [f"<h3>{escape(of)} since {escape(ref)}</h3>", _table(HEAD, lines), foot]


def _networks(found: Sequence[networks.Row]) -> str:
    head = ("network", "fastest peer", "ms", "lrw ms", "times as fast", "largest error")
    lines = [
        (r.network, r.peer, f"{r.lrw_ms * r.speedup:.3g}", f"{r.lrw_ms:.3g}", f"{r.speedup:.2f}", f"{r.error:.0e}")
        for r in found
    ]
    mean = ("geometric mean", "", "", "", _mean(r.speedup for r in found), "")
    return _table(head, [*lines, mean]) + _made(found)


def _layers(found: Sequence[inference.Row]) -> str:
    shares = sorted({r.share for r in found}, reverse=True)
    head = ("layer", "tile", "torch ms", *(f"{share:.0%}" for share in shares))
    lines = []
    for case in dict.fromkeys(r.case for r in found):
        own = {r.share: r for r in found if r.case == case}
        first = own[max(own)]
        speedups = [f"{own[share].speedup:.2f}" if share in own else "" for share in shares]
        lines.append((case, first.tile, f"{first.torch_ms:.3g}", *speedups))
    means = [_mean(r.speedup for r in found if r.share == share) for share in shares]
    return _table(head, [*lines, ("geometric mean", "", "", *means)]) + _made(found)


def _mean(speedups: Iterable[float]) -> str:
    return f"{geometric_mean(speedups):.2f}"


def _made(found: Sequence[rows.Row]) -> str:
    return f'<p class="made">{escape(", ".join(rows.made(found)))}</p>'


def _table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{escape(cell)}</{kind}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(cells, "td") for cells in lines) + "</table>"


def _bars(groups: Mapping[str, Mapping[str, float]], label: str, line: float | None = None) -> Any:
    """A group of bars for each name, one of each machine."""
    figure, ax = _axes()
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.8 / len(groups)
    for i, (of, values) in enumerate(groups.items()):
        places = [(at - 0.4 + (i + 0.5) * width, values[name]) for at, name in enumerate(names) if name in values]
        if places:
            ax.bar(*zip(*places, strict=True), width, label=of, color=COLOURS[i % len(COLOURS)])
    if line is not None:
        ax.axhline(line, color="black", linewidth=0.8)
    ax.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    ax.set_ylabel(label)
    figure.legend(loc="outside upper right", fontsize=8, ncols=len(groups))
    return figure


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _figure(figure: Any, caption: str) -> str:
    """A figure as part of the page; the same figure is the same text."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": caption, "svg.fonttype": "path"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    return f"<figure>{drawing[drawing.index('<svg') :]}<figcaption>{escape(caption)}</figcaption></figure>"
