"""What `lrw export` says of a library: as JSON and as tables for people."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from lrw_kernels.winograd import Tile

if TYPE_CHECKING:
    from lrw_kernels.aot import Artifacts


@dataclass(frozen=True)
class Check:
    """How the library ran here, its largest difference from torch over the largest output, and the largest accepted."""

    how: str
    error: float
    limit: float

    @property
    def passed(self) -> bool:
        """Not where the error is not a number."""
        return self.error <= self.limit

    @property
    def verdict(self) -> str:
        """In words."""
        outcome = f"largest error {self.error:.1e} of the largest output"
        return outcome if self.passed else f"{outcome}; accepted is up to {self.limit:g}"

    def described(self) -> dict[str, Any]:
        """For JSON, which knows finite numbers only: the error is None where it is none."""
        return {**asdict(self), "error": self.error if isfinite(self.error) else None, "passed": self.passed}


def described(built: "Artifacts", check: Check | None) -> dict[str, Any]:
    """The manifest with the paths and sizes of its files, how it was linked or why not, and the check's outcome.

    Raises ValueError and OSError as `Artifacts.load` does.
    """
    from lrw_kernels.aot.manifest import read_manifest

    manifest = read_manifest(built.manifest)
    paths = _paths(built)
    return {
        **manifest,
        "paths": {what: str(path) for what, path in paths.items()},
        "bytes": {what: path.stat().st_size for what, path in paths.items()},
        "link": built.note,
        "check": None if check is None else check.described(),
    }


def show(console: Console, built: "Artifacts", check: Check | None) -> None:
    """Print the layers, what goes in and comes out, sizes and files."""
    values = described(built, check)
    console.print(_layer_table(values))
    for port in (*built.inputs, *built.outputs):
        text = ", ".join(filter(None, (_size(port.size), port.origin)))
        console.print(f"{port.name}: {text}", highlight=False, soft_wrap=True, markup=False)
    sizes = values["bytes"]
    library = sizes.get("shared", sizes["static"])
    parts = {"library": library, "weights": sizes["weights"], "workspace": built.workspace_bytes}
    text = ", ".join(f"{what} {size / 1024:,.1f} KiB" for what, size in parts.items())
    console.print(f"{text}; threads: at most {built.threads}", highlight=False, soft_wrap=True)
    if "shared" not in values["paths"]:
        console.print(f"no shared library: {built.note}", highlight=False, soft_wrap=True, markup=False)
    if check is not None:
        console.print(f"check: {check.how}, {check.verdict}", highlight=False, soft_wrap=True)
    for what, path in values["paths"].items():
        console.print(f"{what}: {path}", highlight=False, soft_wrap=True, markup=False)


def _paths(built: "Artifacts") -> dict[str, Path]:
    beside = built.manifest.with_name
    files = {
        "manifest": built.manifest,
        "header": built.header,
        "weights": built.weights,
        "static": built.static,
        "shared": built.shared,
        "example": beside("main.c"),
        "threads": beside("lrw_threads.c"),
        "threads_header": beside("lrw_threads.h"),
        "cmake": beside("CMakeLists.txt"),
    }
    return {what: path for what, path in files.items() if path is not None}


def _layer_table(manifest: dict[str, Any]) -> Table:
    title = f"{manifest['name']} for {manifest['target']}, sizes (batch, depth, height, width, channel)"
    table = Table(title=title, title_justify="left")
    for column in ("layer", "operator", "tile", "columns kept", "output", "weights"):
        table.add_column(column, justify="left" if column in ("layer", "operator", "tile") else "right")
    for layer in manifest["layers"]:
        tile = Tile.parse(layer["tile"]) if "tile" in layer else None
        kept = "" if tile is None else f"{_kept(layer['blocks'])}/{tile.positions}"
        size, weights = _size(layer["size"]), f"{layer['weights_bytes'] / 1024:,.1f} KiB"
        table.add_row(layer["name"], layer["operator"], tile.name if tile else "", kept, size, weights)
    return table


def _size(numbers: Iterable[int]) -> str:
    return "x".join(map(str, numbers))


def _kept(blocks: list[dict[str, Any]]) -> str:
    """The number; of blocks of channels that differ, the least and the most."""
    counts = sorted({len(block["kept"]) for block in blocks})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
