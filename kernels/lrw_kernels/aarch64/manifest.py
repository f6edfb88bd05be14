"""The manifest of a library: what it computes, of what size, from which files; written once, checked when read."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrw_kernels.aarch64 import abi
from lrw_kernels.aarch64.assemble import Assembly
from lrw_kernels.aarch64.network import Size
from lrw_kernels.aarch64.targets import Target, find_target
from lrw_kernels.native.versions import package_version


@dataclass(frozen=True)
class Artifacts:
    """Where the files of one built network are, and its sizes.

    `shared` is None where no linker was there; `note` says which linked, or why none did.
    """

    name: str
    target: Target
    input_size: Size
    output_size: Size
    threads: int
    workspace_bytes: int
    header: Path
    weights: Path
    static: Path
    shared: Path | None
    manifest: Path
    note: str = ""

    @staticmethod
    def load(path: Path, note: str = "") -> "Artifacts":
        """The library a manifest describes.

        Raises ValueError where the manifest is none, of another version, or does not describe the files beside it;
        OSError where it or one of them cannot be read.
        """
        values = _Values(path)
        version_found = values.whole("abi_version", 1)
        if version_found != abi.ABI_VERSION:
            raise ValueError(f"{path.name}: abi_version: {version_found}; this lrw reads {abi.ABI_VERSION}")
        files = {what: values.file(what) for what in ("header", "weights", "static")}
        _check_weights(path.name, files["weights"], values)
        return Artifacts(
            name=values.text("name"),
            target=find_target(values.text("target")),
            input_size=values.size("input_size"),
            output_size=values.size("output_size"),
            threads=values.whole("threads", 1),
            workspace_bytes=values.whole("workspace_bytes", 1),
            shared=values.file("shared") if "shared" in values.mapping("files") else None,
            manifest=path,
            note=note,
            **files,
        )


def manifest_text(assembly: Assembly, target: Target, files: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """JSON, a line per entry and per layer; `versions` of what made it, beside those of the packages this one uses."""
    own = {package: package_version(package) for package in ("numba", "llvmlite", "numpy")}
    weights = {"bytes": len(assembly.weights), "sha256": hashlib.sha256(assembly.weights).hexdigest()}
    entries: dict[str, Any] = {
        "abi_version": abi.ABI_VERSION,
        "name": assembly.name,
        "target": target.name,
        "cpu_features": target.needs,
        "input_size": assembly.input_size,
        "output_size": assembly.output_size,
        "threads": assembly.threads,
        "workspace_bytes": assembly.workspace_bytes,
        "steps": assembly.step_count,
        "files": files,
        "weights": weights,
        "versions": {**own, **versions},
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items()]
    layers = ",\n ".join(json.dumps(layer) for layer in assembly.layers)
    return "{\n" + ",\n".join([*lines, f'"layers": [\n {layers}\n]']) + "\n}\n"


def _check_weights(name: str, path: Path, values: "_Values") -> None:
    data, stated = path.read_bytes(), values.mapping("weights")
    if stated.get("bytes") != len(data):
        raise ValueError(f"{name}: {path.name} has {len(data)} bytes, not {stated.get('bytes')!r}")
    if stated.get("sha256") != hashlib.sha256(data).hexdigest():
        raise ValueError(f"{name}: {path.name} does not have the checksum {stated.get('sha256')!r}")


class _Values:
    """A manifest's entries, each checked as it is taken."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            values = json.loads(path.read_text())
        except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path.name}: no manifest: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path.name}: no manifest: a JSON {type(values).__name__}")
        self._values = values

    def mapping(self, key: str) -> dict[str, Any]:
        """An object."""
        return self._checked(key, dict, "an object")

    def text(self, key: str) -> str:
        """A string."""
        return self._checked(key, str, "a string")

    def whole(self, key: str, least: int) -> int:
        """An integer from `least`."""
        value = self._values.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{self._path.name}: {key}: {value!r}; accepted are integers from {least}")
        return value

    def size(self, key: str) -> Size:
        """Five integers from 1."""
        value = self._values.get(key)
        if (
            not isinstance(value, list)
            or len(value) != 5
            or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value)
        ):
            raise ValueError(f"{self._path.name}: {key}: {value!r}; accepted are five integers from 1")
        n, d, h, w, c = value
        return n, d, h, w, c

    def file(self, key: str) -> Path:
        """A file beside the manifest."""
        name = self.mapping("files").get(key)
        if not isinstance(name, str) or Path(name).name != name or not (self._path.parent / name).is_file():
            raise ValueError(f"{self._path.name}: files: {key}: {name!r}; accepted are names of files beside it")
        return self._path.parent / name

    def _checked(self, key: str, kind: type, what: str) -> Any:
        value = self._values.get(key)
        if not isinstance(value, kind):
            raise ValueError(f"{self._path.name}: {key}: {value!r}; accepted is {what}")
        return value
