"""The report of a job: plain numbers, as JSON and as tables for people."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from math import sqrt
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from lrw import files
from lrw.compress import LayerSize
from lrw.job.plain import Plain
from lrw.job.state import Epoch, Scores
from lrw.version import __version__

MILESTONES = {
    "dense": "dense, as trained",
    "finetuned": "low-rank, all columns",
    "pruned": "columns dropped, before retraining",
    "retrained": "low-rank retrained",
    "compressed": "compressed, loaded back",
}
NAMES = {"dice": "Dice", "accuracy": "accuracy", "auc": "AUC"}
HALF = 0.5
FEW = 48  # channels, below which transforms take more than products
LEGEND = """\
kept: Winograd columns that are left, of the tile's; trainable: numbers that fine-tuning and retraining change in the
layer; stored: its weights in the file; filter: weights of the convolution it was; multiplies: of one sample, transforms
included, direct: of the convolution; conv3d: torch's time for it in the faster of its two layouts."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerRow:
    """One layer: columns, parameters, multiplies per sample, milliseconds per sample."""

    name: str
    tile: str
    columns: int
    kept: int
    trainable: int
    stored: int
    spatial: int
    multiplies: int
    direct_multiplies: int
    conv3d_ms: float
    lrw_ms: float

    @staticmethod
    def of(size: LayerSize, trainable: int, conv3d_ms: float, lrw_ms: float) -> "LayerRow":
        """The row of a measured layer."""
        return LayerRow(
            size.name,
            size.tile,
            size.columns,
            size.kept,
            trainable,
            size.stored,
            size.spatial,
            size.multiplies or 0,
            size.direct_multiplies or 0,
            round(conv3d_ms, 4),
            round(lrw_ms, 4),
        )


@dataclass(frozen=True)
class NetworkRow:
    """A whole network: the milestone whose `accuracy` it has, bytes of its file, multiplies (None where the tiles are
    not its own) and milliseconds of one sample, and how many times as fast as the dense network in torch; of
    milliseconds and times the median, and the quartiles of all turns."""

    name: str
    milestone: str
    bytes: int
    multiplies: int | None
    ms: float
    ms_quartiles: list[float]
    faster: float
    faster_quartiles: list[float]

    @staticmethod
    def of(milestone: str, how: str, file: Path, multiplies: int | None, ms: Array, torch_ms: Array) -> "NetworkRow":
        """The row of measured turns, `torch_ms` those of the dense network beside them."""
        (low, middle, high), (least, faster, most) = (
            np.quantile(values, (0.25, 0.5, 0.75)).round(4).tolist() for values in (ms, torch_ms / ms)
        )
        return NetworkRow(
            f"{milestone}{how}", milestone, file.stat().st_size, multiplies, middle, [low, high], faster, [least, most]
        )


@dataclass(frozen=True)
class ExportRow:
    """The exported network; error is the largest difference from torch over the largest output, where it was run."""

    target: str
    header: str | None
    library: str | None
    note: str
    check: str
    error: float | None


@dataclass
class Report:
    """All of a job's results."""

    config: dict[str, Plain]
    data: dict[str, Plain]
    accuracy: dict[str, Scores]
    seconds: dict[str, float]
    parameters: dict[str, list[int]]
    layers: list[LayerRow]
    networks: list[NetworkRow]
    export: ExportRow | None
    history: list[Epoch]
    files: dict[str, str]
    threads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values with the package's version."""
        return {"lrw": __version__, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write JSON to `path`, whole or not at all. Raises OSError naming the file where it cannot be written."""
        with files.whole(path) as partial:
            partial.write_text(json.dumps(self.to_dict(), indent=1) + "\n")

    def show(self, console: Console) -> None:
        """Print the tables, what there is to know for reading them, and where the files are."""
        say = partial(console.print, highlight=False, soft_wrap=True)
        console.print(self._accuracy_table())
        console.print(self._layer_table())
        say(LEGEND)
        console.print(self._network_table())
        for line in (self.verdict, self._export_line, *(f"{what}: {where}" for what, where in self.files.items())):
            if line:
                say(line)

    @property
    def judged_by(self) -> str:
        """The key of the score that networks are judged by."""
        return "dice" if self.data["segmented"] else "accuracy"

    def score(self, row: Mapping[str, object]) -> Any:
        """That score out of a row of `accuracy` or `history`."""
        return row[self.judged_by]

    def score_of(self, row: NetworkRow) -> float:
        """That score of a network, on the test split."""
        return float(self.score(self.accuracy[row.milestone]))

    @property
    def verdict(self) -> str:
        """In one sentence, why the network gained nothing, or nothing more than by being accelerated; empty where it
        gained, beyond what turns differ by."""
        dense, fast, small = self.networks
        if small.ms_quartiles[1] < min(dense.ms_quartiles[0], fast.ms_quartiles[0]):
            return ""
        than = "accelerated alone" if fast.ms_quartiles[1] < dense.ms_quartiles[0] else "in torch"
        share = min(1.0, sum(row.conv3d_ms for row in self.layers) / dense.ms)
        channels = round(median(sqrt(row.stored / row.kept) for row in self.layers))
        why = "what is left of a pass is not in the products that are fewer now, but in transforms, memory and calls"
        if share < HALF:
            why = f"the pruned layers take {share:.0%} of its time in torch, and pruning changes nothing else"
        elif channels < FEW:
            why = f"with so few channels ({channels} or so a layer) {why}; wider networks gain"
        return f"Compressed, the network is no faster than {than}: {why}."

    def _accuracy_table(self) -> Table:
        rows: dict[str, Mapping[str, Any]] = {key: self.accuracy[key] for key in MILESTONES if key in self.accuracy}
        there = [key for key in NAMES if any(row[key] is not None for row in rows.values())]
        title = f"test split of {self.data['name']} ({self.data['test']} samples)"
        table = _table(title, ["network"], [NAMES[key] for key in there] + ["loss", "trainable", "parameters"])
        for key, row in rows.items():
            counts = [f"{count:,}" for count in self.parameters.get(key, [])] or ["", ""]
            table.add_row(MILESTONES[key], *(_score(row[name]) for name in there), f"{row['loss']:.3f}", *counts)
        return table

    def _network_table(self) -> Table:
        title = f"one sample of {'x'.join(map(str, self.data['size']))}, {self.threads} threads"  # type: ignore[arg-type]
        table = _table(
            title, ["network"], [NAMES[self.judged_by], "file", "multiplies", "time", "25 to 75 %", "times as fast"]
        )
        for row in self.networks:
            low, high = row.ms_quartiles
            least, most = row.faster_quartiles
            faster = f"{row.faster:.2f} ({least:.2f} to {most:.2f})" if row is not self.networks[0] else ""
            sizes = (f"{row.bytes / 1e6:.2f} MB", "" if row.multiplies is None else f"{row.multiplies / 1e6:.2f} M")
            times = (f"{row.ms:.2f} ms", f"{low:.2f} to {high:.2f}", faster)
            table.add_row(row.name, _score(self.score_of(row)), *sizes, *times)
        return table

    @property
    def _export_line(self) -> str:
        row = self.export
        if row is None:
            return ""
        error = "" if row.error is None else f", largest error {row.error:.1e} of the largest output"
        return f"exported the network for {row.target}: {row.check}{error}"

    def _layer_table(self) -> Table:
        right = ["kept", "trainable", "stored", "filter", "multiplies", "direct", "conv3d", "lrw", "times as fast"]
        table = _table("layers, one sample", ["layer", "tile"], right)
        for r in self.layers:
            parameters = (f"{r.trainable:,}", f"{r.stored:,}", f"{r.spatial:,}")
            multiplies = (f"{r.multiplies / 1e6:.2f} M", f"{r.direct_multiplies / 1e6:.2f} M")
            times = (f"{r.conv3d_ms:.3f} ms", f"{r.lrw_ms:.3f} ms", f"{r.conv3d_ms / r.lrw_ms:.2f}")
            table.add_row(r.name, r.tile, f"{r.kept}/{r.columns}", *parameters, *multiplies, *times)
        return table


def _table(title: str, left: list[str], right: list[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in (*left, *right):
        table.add_column(column, justify="left" if column in left else "right")
    return table


def _score(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
