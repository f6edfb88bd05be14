"""The manifest of a library: what it computes, of what size, from which files; written once, checked when read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrw_kernels.aot import abi
from lrw_kernels.aot.ports import Port, Ports
from lrw_kernels.aot.targets import Target, find_target
from lrw_kernels.codegen.versions import package_version
from lrw_kernels.network.described import described
from lrw_kernels.network.graph import Size
from lrw_kernels.program.program import Program
from lrw_kernels.untrusted import Entries, read_json, shown
from lrw_kernels.winograd import Tile, kept_positions

MOST_BYTES = 2**40
"""Activations, or a workspace: more than any machine such a library is for has."""
_FILES = ("header", "weights", "static")


@dataclass(frozen=True)
class Artifacts:
    """Where the files of one built network are, and what goes in and comes out, in the order of its parameters.

    `shared` is None where no linker was there; `note` says which linked, or why none did.
    """

    name: str
    target: Target
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    threads: int
    workspace_bytes: int
    header: Path
    weights: Path
    static: Path
    shared: Path | None
    manifest: Path
    note: str = ""

    def __repr__(self) -> str:
        ports = [", ".join(f"{p.name} {list(p.size)}" for p in ports) for ports in (self.inputs, self.outputs)]
        return f"<{self.name} for {self.target.name} in {self.manifest.parent}: {ports[0]} -> {ports[1]}>"

    @staticmethod
    def load(path: Path, note: str = "") -> "Artifacts":
        """The library a manifest describes.

        Raises ValueError where the manifest is none, of another version, damaged, or does not describe the files beside
        it; OSError where it or one of them cannot be read.
        """
        values = Entries(read_manifest(path))
        files = {what: _file(path, values, what) for what in _FILES}
        _check_weights(path.name, files["weights"], values.entries("weights"))
        return Artifacts(
            name=values.text("name"),
            target=find_target(values.text("target")),
            inputs=_ports(values, "input"),
            outputs=_ports(values, "output"),
            threads=values.whole("threads", 1),
            workspace_bytes=values.whole("workspace_bytes", 1),
            shared=_file(path, values, "shared") if "shared" in values.entries("files") else None,
            manifest=path,
            note=note,
            **files,
        )


def read_manifest(path: Path) -> dict[str, Any]:
    """The entries of the manifest at `path`, those that lrw reads checked. Raises as `Artifacts.load`."""
    found = read_json(path, path.name)
    try:
        values = Entries(found)
        _check_entries(path, values)
        if "digest" in values and values.text("digest") != _digest(values.values):  # manifests before had none
            raise ValueError("damaged: its entries do not have the digest that stands there")
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return values.values


def manifest_text(
    program: Program, ports: Ports, weights: bytes, target: Target, files: Mapping[str, str],
    versions: Mapping[str, str],
) -> str:  # fmt: skip
    """JSON, a line per entry and per layer; `weights` is their whole file, `versions` those of what made the network,
    beside those of the packages this one uses."""
    own = {package: package_version(package) for package in ("numba", "llvmlite", "numpy")}
    entries: dict[str, Any] = {
        "abi_version": abi.ABI_VERSION,
        "name": program.name,
        "target": target.name,
        "cpu_features": target.needs,
        "inputs": [_described(port) for port in ports.inputs],
        "outputs": [_described(port) for port in ports.outputs],
        "threads": program.threads,
        "workspace_bytes": program.workspace_bytes,
        "steps": program.step_count,
        "files": files,
        "weights": {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()},
        "versions": {**own, **versions},
    }
    layers = [{**described(node), **details} for node, details in program.layers]
    entries["digest"] = _digest({**entries, "layers": layers})
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
    of_layers = ",\n ".join(map(json.dumps, layers))
    return "{\n" + ",\n".join([*lines, f'"layers": [\n {of_layers}\n]']) + "\n}\n"


def _check_entries(path: Path, values: Entries) -> None:
    version_found = values.whole("abi_version", 1)
    if version_found != abi.ABI_VERSION:
        raise ValueError(f"abi_version: {version_found}; this lrw reads {abi.ABI_VERSION}")
    abi.check_name(values.text("name"))
    find_target(values.text("target"))
    if "input_size" in values:
        raise ValueError("input_size: is of an earlier lrw; accepted are manifests with a list of inputs: export again")
    for kind in ("input", "output"):
        _ports(values, kind)
    values.whole("threads", 1)
    values.whole("workspace_bytes", 1, MOST_BYTES)
    for what in (*_FILES, *(["shared"] if "shared" in values.entries("files") else [])):
        _file(path, values, what)
    values.entries("weights").whole("bytes", 0)
    values.entries("weights").text("sha256")
    for layer in values.each("layers"):
        _check_layer(layer)


def _check_layer(layer: Entries) -> None:
    """Check the entries of a layer that lrw shows. Raises ValueError naming the entry."""
    layer.text("name")
    layer.text("operator")
    layer.whole("weights_bytes", 0)
    _size(layer, "size")
    if "tile" in layer:
        tile = Tile.parse(layer.text("tile"))
        if layer.values.get("blocks") == []:
            raise layer.refused("blocks", "are one or more")
        for block in layer.each("blocks"):
            block.whole("channels", 1)
            kept = block.list("kept")
            if kept:
                kept_positions(kept, tile)


def _check_weights(name: str, path: Path, stated: Entries) -> None:
    size = path.stat().st_size
    if stated.whole("bytes", 0) != size:
        raise ValueError(f"{name}: {path.name} has {size} bytes, not {stated.whole('bytes', 0)}")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if stated.text("sha256") != found:
        raise ValueError(f"{name}: {path.name} does not have the checksum {shown(stated.text('sha256'))}")


def _described(port: Port) -> dict[str, Any]:
    return {"name": port.name, "node": port.node, "size": port.size, "is": port.origin}


def _ports(values: Entries, kind: str) -> tuple[Port, ...]:
    """Those of a `kind`, "input" or "output". Raises ValueError naming the entry that no library has."""
    key = f"{kind}s"
    found = tuple(_port(of) for of in values.each(key))
    names = abi.parameters(kind, len(found))
    if not found or any(port.name != name for port, name in zip(found, names, strict=True)):
        raise values.refused(key, f"are one, called {kind}, or several, called {kind}_0 and so on")
    return found


def _port(values: Entries) -> Port:
    port = Port(values.text("name"), values.text("node"), _size(values, "size"), values.text("is"))
    if port.bytes > MOST_BYTES:
        raise values.refused("size", f"are activations of up to {MOST_BYTES} bytes")
    return port


def _size(values: Entries, key: str) -> Size:
    n, d, h, w, c = values.wholes(key, 5, 1)
    return n, d, h, w, c


def _file(path: Path, values: Entries, key: str) -> Path:
    """The path of file `key`, which must lie beside the manifest at `path`. Raises ValueError where it does not."""
    files = values.entries("files")
    name = files.values.get(key)
    if not isinstance(name, str) or Path(name).name != name or not (path.parent / name).is_file():
        raise files.refused(key, "are names of files beside it")
    return path.parent / name


def _digest(entries: Mapping[str, Any]) -> str:
    """SHA-256 over all entries but the digest itself: damage shows wherever it is."""
    others = {key: value for key, value in entries.items() if key != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
