"""What is written down: a row for each figure, with what it is a figure of; a CSV that grows row by row."""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, Self

THEIRS = "cuDNN: "  # notes that begin so are of direct convolution alone
CERTIFICATE = ("device", "commit", "versions", "date")


@dataclass(frozen=True)
class Row:
    """One figure, or why there is none.

    kind: ceiling; forward, input_grad, weight_grad: whole passes in a stream of calls; graph, graph_input_grad,
    graph_weight_grad: those in CUDA graphs; training: all three, with weights that are transformed; gather,
    products, bmm, scatter, fused: stages of a forward pass, gather_dy, weight_sums: more of the weights' gradient;
    memory: a training step of the layer; step: of a network; sweep: a kernel in the configuration that form says,
    refused: one that the device or the compiler does not take, workspace: forward in a CUDA graph by parts of that
    size. columns: share kept. ms, low, high: median, 20 % and 80 % quantiles; cudnn_ms: median of direct
    convolution in its faster form; floor_ms: the least a pass could take (see `floors`); rate: bytes or operations
    a second, of_ceiling: over what was measured of the device; error: over the size of the result, both as norms;
    mib: peak memory.
    """

    kind: str
    layer: str = ""
    precision: str = ""
    cin: int | None = None
    cout: int | None = None
    size: str = ""
    batch: int | None = None
    tile: str = ""
    columns: float | None = None
    form: str = ""
    ms: float | None = None
    low: float | None = None
    high: float | None = None
    cudnn_ms: float | None = None
    cudnn_form: str = ""
    speedup: float | None = None
    floor_ms: float | None = None
    rate: float | None = None
    of_ceiling: float | None = None
    error: float | None = None
    mib: float | None = None
    cudnn_mib: float | None = None
    note: str = ""

    @property
    def failed(self) -> bool:
        """Whether it has a reason instead of numbers of ours that it should have."""
        return bool(self.note) and self.kind != "refused" and not self.note.startswith(THEIRS)


_TEXTS = ("kind", "layer", "precision", "size", "tile", "form", "cudnn_form", "note")
_COUNTS = ("cin", "cout", "batch")


def parse(cells: dict[str, str]) -> Row:
    """The row that a CSV line was written from. Raises KeyError or ValueError for other lines."""
    values: dict[str, Any] = {}
    for name in (f.name for f in fields(Row)):
        text = cells[name]
        convert: Any = str if name in _TEXTS else int if name in _COUNTS else float
        values[name] = text if name in _TEXTS else convert(text) if text else None
    return Row(**values)


def read(lines: Iterable[dict[str, str]]) -> list[Row]:
    """All rows of a CSV."""
    return [parse(line) for line in lines]


def cells(row: Row) -> dict[str, Any]:
    """A CSV line, numbers to four digits, which is what they are worth."""
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in asdict(row).items()}


class Writer:
    """A CSV of rows, on the disk after each of them; with no path, nothing is written. A context manager.

    What is in the file stays until there is a first row.
    """

    def __init__(self, path: Path | None, stamp: Sequence[str]) -> None:
        """Raises OSError where the file cannot be written."""
        self._file = None if path is None else path.open("a", newline="")
        self._lines: csv.DictWriter[str] | None = None
        self._stamp = dict(zip(CERTIFICATE, stamp, strict=True))

    def write(self, row: Row) -> None:
        """One row."""
        if self._file is None:
            return
        if self._lines is None:
            self._file.truncate(0)
            self._lines = csv.DictWriter(self._file, [*(f.name for f in fields(Row)), *CERTIFICATE])
            self._lines.writeheader()
        self._lines.writerow({**cells(row), **self._stamp})
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
