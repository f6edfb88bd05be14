"""A layer's files: object, header, weights, manifest and, where a linker is installed, shared library."""

import hashlib
import json
import os
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.aarch64.abi import ABI_VERSION
from lrw_kernels.aarch64.header import header_text
from lrw_kernels.aarch64.link import link_shared
from lrw_kernels.aarch64.lower import lower_layer
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import Target, find_target

Array = npt.NDArray[np.float32]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class Artifacts:
    """Where the files of one built layer are.

    `library` is None when no linker was there; `note` says which linked, or why none did.
    """

    spec: LayerSpec
    target: str
    object: Path
    header: Path
    weights: Path
    manifest: Path
    library: Path | None
    note: str


def build_layer(
    spec: LayerSpec, u: Array, bias: Array | None, out_dir: PathLike, *, target: str = "aarch64-linux-gnu"
) -> Artifacts:
    """Lower, link and write layer `spec` with u float32 [K, Cin, Cout] and bias float32 [Cout] or None.

    Files appear in `out_dir` (made if missing) complete or not at all, the manifest last. Raises ValueError
    for arrays that do not fit `spec` or an unknown target, RuntimeError when lowering or linking fails.
    """
    machine = find_target(target)
    blob = pack_weights(spec, u, bias)
    code = lower_layer(spec, target)
    folder = Path(out_dir)
    folder.mkdir(parents=True, exist_ok=True)
    files = _files(spec, folder)
    with TemporaryDirectory(prefix=".lrw-", dir=folder) as name:
        drafts = {what: Path(name, path.name) for what, path in files.items()}
        drafts["object"].write_bytes(code)
        drafts["header"].write_text(header_text(spec))
        drafts["weights"].write_bytes(blob)
        library, note = link_shared(drafts["object"], drafts["library"], spec, machine)
        listed = {what: path.name for what, path in files.items() if what != "library" or library}
        drafts["manifest"].write_text(_manifest(spec, machine, blob, listed))
        _publish(drafts, files)
    code_files, data_files = (files["object"], files["header"]), (files["weights"], files["manifest"])
    return Artifacts(spec, target, *code_files, *data_files, files["library"] if library else None, note)


def pack_weights(spec: LayerSpec, u: Array, bias: Array | None) -> bytes:
    """The weights blob: u [K, Cin, Cout], then bias [Cout] if there is one, each from a 64-byte boundary.

    Raises ValueError unless both are finite float32 arrays of the layer's shapes.
    """
    if (bias is not None) != spec.bias:
        raise ValueError(f"bias: {'missing' if bias is None else 'given'}; the layer says bias={spec.bias}")
    blob = bytearray(spec.weights_bytes)
    pieces = [("u", u, spec.weight_shape)] + ([] if bias is None else [("bias", bias, (spec.cout,))])
    for (name, values, shape), at in zip(pieces, spec.weight_offsets, strict=False):
        data = _checked(name, values, shape).astype("<f4").tobytes()
        blob[at : at + len(data)] = data
    return bytes(blob)


def _checked(name: str, values: Array, shape: tuple[int, ...]) -> Array:
    if not isinstance(values, np.ndarray) or values.dtype != np.float32:
        kind = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
        raise ValueError(f"{name}: {kind}; accepted is a float32 array")
    if values.shape != shape:
        raise ValueError(f"{name}: shape {list(values.shape)}; accepted is {list(shape)}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: has values that are not finite")
    return values


def _files(spec: LayerSpec, folder: Path) -> dict[str, Path]:
    endings = {"object": "o", "header": "h", "weights": "weights", "manifest": "json"}
    files = {what: folder / f"lrw_{spec.name}.{ending}" for what, ending in endings.items()}
    return files | {"library": folder / f"liblrw_{spec.name}.so"}


def _manifest(spec: LayerSpec, target: Target, blob: bytes, files: dict[str, str]) -> str:
    """JSON, one line per entry."""
    entries: dict[str, Any] = {
        "abi_version": ABI_VERSION,
        "target": target.name,
        "spec": spec.to_dict(),
        "files": files,
        "weights": {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)},
        "workspace_bytes": spec.workspace_bytes,
        "versions": {package: version(package) for package in ("numba", "llvmlite")},
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in entries.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _publish(drafts: dict[str, Path], files: dict[str, Path]) -> None:
    """Rename drafts to files. No manifest stands meanwhile: one that does describes what lies beside it."""
    files["manifest"].unlink(missing_ok=True)
    for what in ("object", "header", "weights", "library", "manifest"):
        if drafts[what].exists():
            os.replace(drafts[what], files[what])
        else:
            files[what].unlink(missing_ok=True)
