"""The report of a job: plain numbers, as JSON and as tables for people."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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
    network_ms: dict[str, float]
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
        """Print the tables."""
        console.print(self._accuracy_table())
        console.print(self._layer_table())
        dense, fast, small = (self.network_ms[name] for name in ("dense", "accelerated", "compressed"))
        ours = f"accelerated {fast:.2f} ms ({dense / fast:.2f}x), compressed too {small:.2f} ms ({dense / small:.2f}x)"
        console.print(
            f"whole network, one sample, {self.threads} threads: torch {dense:.2f} ms, {ours}", highlight=False
        )
        if self.export is not None:
            console.print(self._export_line(self.export), highlight=False)
        for what, where in self.files.items():
            console.print(f"{what}: {where}", highlight=False, soft_wrap=True)

    def _accuracy_table(self) -> Table:
        has_auc = any(row["auc"] is not None for row in self.accuracy.values())
        table = Table(title=f"test split of {self.data['name']} ({self.data['test']} samples)", title_justify="left")
        for column in ("network", "accuracy", *(["AUC"] if has_auc else []), "loss", "trainable", "parameters"):
            table.add_column(column, justify="left" if column == "network" else "right")
        for key, text in MILESTONES.items():
            if key in self.accuracy:
                row, counts = self.accuracy[key], self.parameters.get(key)
                auc = [f"{row['auc']:.3f}" if row["auc"] is not None else ""] if has_auc else []
                numbers = [f"{counts[0]:,}", f"{counts[1]:,}"] if counts else ["", ""]
                table.add_row(text, f"{row['accuracy']:.3f}", *auc, f"{row['loss']:.3f}", *numbers)
        return table

    @staticmethod
    def _export_line(row: ExportRow) -> str:
        error = "" if row.error is None else f", largest error {row.error:.1e} of the largest output"
        return f"exported the network for {row.target}: {row.check}{error}"

    def _layer_table(self) -> Table:
        table = Table(title="layers, one sample; x is F.conv3d's time over lrw's", title_justify="left")
        left = ("layer", "tile")
        right = ("kept", "trainable", "stored", "spatial", "Mmul", "direct", "F.conv3d", "lrw", "x")
        for column in (*left, *right):
            table.add_column(column, justify="left" if column in left else "right")
        for r in self.layers:
            parameters = (f"{r.trainable:,}", f"{r.stored:,}", f"{r.spatial:,}")
            multiplies = (f"{r.multiplies / 1e6:.2f}", f"{r.direct_multiplies / 1e6:.2f}")
            times = (f"{r.conv3d_ms:.3f} ms", f"{r.lrw_ms:.3f} ms", f"{r.conv3d_ms / r.lrw_ms:.2f}")
            table.add_row(r.name, r.tile, f"{r.kept}/{r.columns}", *parameters, *multiplies, *times)
        return table
