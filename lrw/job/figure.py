"""The job's figure: accuracy against milliseconds, kept columns as a grid per layer, accuracy over epochs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lrw import files
from lrw.geometry import Geometry
from lrw.job.report import NAMES, Report

_KEPT, _DROPPED = "#1f6f8b", "#e6e6e6"


def draw(report: Report, geometries: Mapping[str, Geometry], path: Path) -> Path | None:
    """Write the figure to `path`, whole or not at all; None where matplotlib is not installed.

    Raises OSError naming the file where it cannot be written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return None
    count = len(geometries)
    per_row = min(4, count)
    rows = -(-count // per_row)
    heights = [3.2, 0.8 * rows + 0.3, 3.0]
    figure = Figure(figsize=(11, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels: Any = figure.subfigures(3, 1, height_ratios=heights)
    gain, masks, history = panels
    figure.get_layout_engine().set(w_pad=0.15, wspace=0.04)  # type: ignore[union-attr, call-arg]
    _draw_gain(gain.subplots(), report)
    masks.suptitle("kept columns: a square per depth position, its rows are h, its columns w", fontsize=9)
    axes = masks.subplots(rows, per_row, squeeze=False).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (name, geometry) in zip(axes, geometries.items(), strict=False):
        _draw_columns(ax, name, geometry)
    _draw_history(history.subplots(), report)
    with files.whole(path) as partial:
        figure.savefig(partial, dpi=120, format="png")
    return path


def column_grid(geometry: Geometry) -> np.ndarray[Any, Any]:
    """The kept mask as a picture [t_h, t_d * (t_w + 1) - 1]: depth slices side by side, NaN between them."""
    d, h, w = geometry.tile.inputs
    mask = np.zeros(d * h * w)
    mask[list(geometry.positions)] = 1
    slices = mask.reshape(d, h, w)
    gap = np.full((h, 1), np.nan)
    parts = [part for index in range(d) for part in ((gap, slices[index]) if index else (slices[index],))]
    return np.hstack(parts)


def _draw_columns(ax: Any, name: str, geometry: Geometry) -> None:
    from matplotlib.colors import ListedColormap

    ax.imshow(column_grid(geometry), cmap=ListedColormap([_DROPPED, _KEPT]), vmin=0, vmax=1, interpolation="nearest")
    ax.set_title(f"{name}  {geometry.columns}/{geometry.tile.positions}", fontsize=8)


def _draw_gain(ax: Any, report: Report) -> None:
    """What the networks score against how long they take, the middle half of the times as a bar."""
    for row in report.networks:
        score = report.score_of(row)
        low, high = row.ms_quartiles
        ax.errorbar(row.ms, score, xerr=[[row.ms - low], [high - row.ms]], marker="o", capsize=3, color=_KEPT)
        ax.annotate(row.name, (row.ms, score), xytext=(6, 6), textcoords="offset points", fontsize=8)
    ax.set_xlabel("milliseconds a sample")
    ax.set_ylabel(f"test {NAMES[report.judged_by]}")
    ax.set_xlim(left=0)
    ax.margins(x=0.15, y=0.3)


def _draw_history(ax: Any, report: Report) -> None:
    name = NAMES[report.judged_by]
    values = [report.score(entry) for entry in report.history]
    ax.plot(range(1, len(values) + 1), values, marker="o", markersize=3, color=_KEPT, label=f"validation {name}")
    starts = [i for i, e in enumerate(report.history) if i and e["stage"] != report.history[i - 1]["stage"]]
    for start in starts:
        ax.axvline(start + 0.5, color="#999999", linewidth=0.8, linestyle="--")
    for start in [0, *starts]:
        ax.annotate(report.history[start]["stage"], (start + 0.6, 1.02), xycoords=("data", "axes fraction"), fontsize=8)
    if "pruned" in report.accuracy:
        ax.axhline(
            report.score(report.accuracy["pruned"]), color="#b5651d", linewidth=0.8, label="test, columns dropped"
        )
    ax.set_xlabel("epoch")
    ax.set_ylabel(name)
    ax.set_ylim(0, 1)
    ax.legend(fontsize=8, loc="lower right")
