"""What is written down: a row for each layer, library and share of columns, with what it is a row of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bench import certificate, rows
from bench.arm.cycles import MODELS
from bench.arm.tools import call
from bench.layers import Layer


@dataclass(frozen=True)
class Row(rows.Row):
    """One run of one layer by one library, or why there is none.

    share: of the columns; instructions, fma, loads, stores: executed; l1, l2: lines missed in the modelled caches;
    error: largest, over the largest output; per_mac: instructions by direct multiply-add; fma_per_mac: multiply-adds of
    four lanes, done by direct ones; mac_per_cycle: direct ones in a modelled cycle of each core in MODELS.
    """

    layer: str
    cin: int
    cout: int
    size: str
    macs: int
    library: str
    version: str
    share: float
    instructions: int | None = None
    fma: int | None = None
    loads: int | None = None
    stores: int | None = None
    l1: int | None = None
    l2: int | None = None
    error: float | None = None
    per_mac: float | None = None
    fma_per_mac: float | None = None
    mac_per_cycle_a55: float | None = None
    mac_per_cycle_a510: float | None = None
    mac_per_cycle_n1: float | None = None
    mac_per_cycle_n2: float | None = None
    mac_per_cycle_x1: float | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"{self.library} {self.version}"

    def rate(self, core: str) -> float | None:
        """Direct multiply-adds in a cycle of a core of MODELS."""
        found: float | None = getattr(self, f"mac_per_cycle_{core}")
        return found


def described(layer: Layer) -> dict[str, object]:
    """The columns that say which layer it is."""
    return {"layer": layer.name, "cin": layer.cin, "cout": layer.cout, "size": layer.extent, "macs": layer.macs}


def rates(layer: Layer, cycles: Mapping[str, float]) -> dict[str, float]:
    """The columns of a layer that takes so many cycles on the cores of MODELS."""
    return {f"mac_per_cycle_{core}": layer.macs / cycles[core] for core in MODELS}


def stamp() -> dict[str, str]:
    """The certificate of rows that QEMU and LLVM made on any machine."""
    qemu, llvm = (_version(tool) for tool in ("qemu-aarch64", "llvm-mca-22"))
    return certificate.stamp(machine="modelled", versions=f"qemu {qemu}, llvm {llvm}")


def _version(tool: str) -> str:
    found = re.search(r"version (\d[\w.]*)", call([tool, "--version"]))
    return found.group(1) if found else "unknown"
