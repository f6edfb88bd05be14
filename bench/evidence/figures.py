"""A figure for each task: the metric against what is left, by method."""

from pathlib import Path
from statistics import mean
from typing import Any

from bench.evidence.chain import DENSE
from bench.evidence.claims import spread
from bench.evidence.rows import Row, select
from bench.evidence.settings import LEVERS, MAIN, REMOVED

COLOURS = ("#1f6f8b", "#b5651d", "#4b8b3b", "#8b1f5c", "#6b6b6b", "#c9a227", "#27408b", "#999999", "#d2691e")
MARKS = "os^Dv<>PX"


def draw(rows: list[Row], task: str, path: Path) -> Path:
    """Write the figure of one task."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    ax: Any = figure.subplots()
    there = [method for method in (*MAIN, *LEVERS) if select(rows, task, method, REMOVED[0])]
    for index, method in enumerate(there):
        values = [[row.value for row in select(rows, task, method, removed)] for removed in REMOVED]
        places = [x + 0.06 * (index - len(there) / 2) for x in range(len(REMOVED))]
        ax.errorbar(places, [mean(v) for v in values], [spread(v) for v in values], label=method, capsize=2,
                    color=COLOURS[index], marker=MARKS[index], markersize=4, linewidth=1)  # fmt: skip
    dense = [row.value for row in select(rows, task, DENSE, 0.0)]
    ax.axhline(mean(dense), color="black", linewidth=0.8, linestyle="--", label="dense")
    ax.set_xticks(range(len(REMOVED)), [f"{100 * removed:.4g} %" for removed in REMOVED])
    ax.set_xlabel("columns or weights removed")
    ax.set_ylabel(f"{rows[0].metric if not dense else select(rows, task, DENSE, 0.0)[0].metric} (test)")
    ax.set_title(f"{task}, mean and deviation of {len(dense)} seeds", fontsize=10)
    ax.legend(fontsize=7, ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
