"""What is written down: a row for each layer, library and share of columns, with what it is a row of."""

import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bench.arm.cycles import MODELS
from bench.arm.tools import call
from bench.certificate import commit, today
from bench.evidence.rows import CERTIFICATE
from bench.evidence.rows import versions as python_versions
from bench.layers import Layer

Cell = str | int | float | None


@dataclass(frozen=True)
class Row:
    """One run of one layer by one library, or why there is none.

    share: of the columns; instructions, fma, loads, stores: executed; per_mac: instructions by direct multiply-add;
    fma_per_mac: multiply-adds of four lanes, done by direct ones; mac_per_cycle: direct ones in a modelled cycle of
    each core in MODELS; l1, l2: lines missed in the modelled caches; error: largest, over the largest output.
    """

    layer: Layer
    library: str
    version: str
    share: float
    instructions: int | None = None
    fma: int | None = None
    loads: int | None = None
    stores: int | None = None
    mac_per_cycle: dict[str, float] = field(default_factory=dict)
    l1: int | None = None
    l2: int | None = None
    error: float | None = None
    note: str = ""

    @property
    def per_mac(self) -> float | None:
        return None if self.instructions is None else self.instructions / self.layer.macs

    @property
    def fma_per_mac(self) -> float | None:
        return None if self.fma is None else 4 * self.fma / self.layer.macs

    def cells(self) -> dict[str, Cell]:
        """The values of a CSV line by column, rounded to what they are worth."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("layer", "mac_per_cycle")}
        size = "x".join(map(str, self.layer.size))
        layer = {"layer": self.layer.name, "cin": self.layer.cin, "cout": self.layer.cout, "size": size}
        rates = {f"mac_per_cycle_{core}": self.mac_per_cycle.get(core) for core in MODELS}
        ratios = {"per_mac": self.per_mac, "fma_per_mac": self.fma_per_mac, **rates, "error": self.error}
        rounded = {name: None if value is None else float(f"{value:.4g}") for name, value in ratios.items()}
        note = {"note": own.pop("note")}
        return {**layer, "macs": self.layer.macs, **own, **rounded, **note}


def probe(path: Path) -> None:
    """Raise OSError, with the place, where `write` could not write."""
    try:
        _draft(path).touch()
        _draft(path).unlink()
    except OSError as error:
        raise OSError(f"--csv {path}: {error.strerror}") from error


def _draft(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the file anew, whole or not at all, with commit, versions and date behind every row."""
    stamp = dict(zip(CERTIFICATE, (commit(), versions(), today()), strict=True))
    draft = _draft(path)
    with draft.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0].cells(), *CERTIFICATE])
        writer.writeheader()
        writer.writerows({**row.cells(), **stamp} for row in rows)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def versions() -> str:
    """QEMU, LLVM, and those of the Python side."""
    qemu, llvm = (_version(tool) for tool in ("qemu-aarch64", "llvm-mca-22"))
    return f"qemu {qemu}, llvm {llvm}, {python_versions()}"


def _version(tool: str) -> str:
    found = re.search(r"version (\d[\w.]*)", call([tool, "--version"]))
    return found.group(1) if found else "unknown"
