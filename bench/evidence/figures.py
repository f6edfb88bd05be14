"""Two figures: the metric against milliseconds, every method, and how the dense networks came to be."""

from pathlib import Path
from statistics import mean
from typing import Any

from bench.evidence.chain import DENSE
from bench.evidence.latency import WIDE
from bench.evidence.results import Results
from bench.evidence.rows import Epoch
from bench.evidence.settings import EIGHT_BITS

LINES = {
    "fitted": ("F(2,3), no training", "#9ecae1", "o"), "fitted_f4": ("F(4,3), no training", "#fdae6b", "o"),
    "planned": ("planned, no training", "#a1d99b", "o"), "low_rank": ("F(2,3), rank 8", "#2171b5", "s"),
    "low_rank_f4": ("F(4,3), rank 8", "#d94801", "s"), "planned_low_rank": ("planned, rank 8", "#238b45", "s"),
    "grouped": ("blocks, rank 8", "#6a51a3", "^"), "filters": ("filters (Torch-Pruning)", "#636363", "D"),
    "native": ("native pruning", "#c51b8a", "v"), "sparse_winograd": ("Sparse-Winograd", "#f768a1", "v"),
    "spatial_winograd": ("Spatial-Winograd", "#7a0177", "v"),
}  # fmt: skip
LEAST = 8.5  # inches, in which the legend has room
SHOWN = 0.08  # of the metric below the dense network's; the rest lies outside


def draw(results: Results, path: Path) -> Path:
    """`against_time` in a file."""
    return _saved(against_time(results), path)


def against_time(results: Results) -> Any:
    """The metric against milliseconds at the papers' width, a panel for each task that was timed."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    timed = [task for task in results.tasks if any(t.task == task for t in results.times)]
    figure, panels = _figure(len(timed))
    for ax, task in zip(panels, timed, strict=True):
        dense = results.score(task, DENSE, 0.0)
        assert dense is not None
        top = dense.interval.mean
        _points(ax, results, task, top)
        for method, (label, colour, mark) in LINES.items():
            rates = [r for r in results.rates(task, method) if r]
            found = [(t.ms, s.interval.mean) for r in rates
                     if (t := results.timing(task, method, r)) and (s := results.score(task, method, r))]  # fmt: skip
            if found:
                ax.plot(*zip(*found, strict=True), color=colour, marker=mark, markersize=4, linewidth=1, label=label)
        ax.set_ylim(top - SHOWN, top + SHOWN / 8)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(ScalarFormatter())
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(f"ms, batch 1, width {WIDE[task]}")
        ax.set_ylabel(f"{results.of(task, DENSE)[0].metric} (test)")
        ax.set_title(task, fontsize=10)
    named = {label: handle for ax in panels for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=5, fontsize=7)
    return figure


def draw_curves(curves: list[Epoch], path: Path) -> Path:
    """The dense networks epoch by epoch: metric on the test samples and loss on the training samples, each seed."""
    tasks = list(dict.fromkeys(epoch.task for epoch in curves))
    figure, panels = _figure(len(tasks))
    for ax, task in zip(panels, tasks, strict=True):
        own, right = [epoch for epoch in curves if epoch.task == task], ax.twinx()
        for seed in sorted({epoch.seed for epoch in own}):
            line = [(e.epoch, e.value, e.loss) for e in own if e.seed == seed]
            epochs, values, losses = zip(*line, strict=True)
            ax.plot(epochs, values, color="#2171b5", linewidth=1)
            right.plot(epochs, losses, color="#bdbdbd", linewidth=1)
        ax.set_xlabel("epoch")
        ax.set_ylabel("test metric (blue)")
        right.set_ylabel("training loss (grey)")
        ax.set_title(task, fontsize=10)
    return _saved(figure, path)


def _points(ax: Any, results: Results, task: str, top: float) -> None:
    """The dense network in each way a user would run it."""
    times = [t for t in results.times if t.task == task and t.width == WIDE[task]]
    if not times:
        return
    for name, label, mark in (("torch_ms", "dense, torch", "*"), ("openvino_ms", "dense, OpenVINO", "P"),
                              ("dense_ms", "dense, lrw.accelerate", "X")):  # fmt: skip
        found = [ms for t in times if (ms := getattr(t, name)) is not None]
        if found:
            ax.scatter([mean(found)], [top], color="black", marker=mark, s=40, label=label, zorder=3)
    eight, found = results.score(task, EIGHT_BITS, 0.0), [t.int8_ms for t in times if t.int8_ms is not None]
    if eight is not None and found:
        ax.scatter([mean(found)], [eight.interval.mean], color="red", marker="P", s=40, label="OpenVINO int8", zorder=3)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(LEAST, 4.0 * panels + 0.5), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _saved(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    return path
