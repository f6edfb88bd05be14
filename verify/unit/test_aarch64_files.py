"""Files of an exported layer: the manifest describes them, a missing linker is said, a failed build changes nothing."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aarch64 import build
from lrw_kernels.aarch64.build import build_layer
from lrw_kernels.aarch64.elf import read_elf
from lrw_kernels.aarch64.emulate import missing_tools, run_layer
from lrw_kernels.aarch64.link import link_shared
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import find_target
from verify.unit.exported_layers import ARM, Builder, Case, need


@pytest.fixture
def quick(built: Builder, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The dense layer, lowered already: what follows is about files."""
    code = built("dense", ARM).object.read_bytes()
    monkeypatch.setattr(build, "lower_layer", lambda spec, target: code)
    return built.cases["dense"]


def test_manifest_describes_the_files(quick: Case, tmp_path: Path) -> None:
    made = build_layer(quick.spec, quick.u, quick.bias, tmp_path / "new" / "folder")
    manifest = json.loads(made.manifest.read_text())
    assert LayerSpec.from_dict(manifest["spec"]) == quick.spec
    assert (manifest["abi_version"], manifest["target"]) == (1, ARM)
    blob = made.weights.read_bytes()
    assert manifest["weights"] == {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    assert manifest["workspace_bytes"] == quick.spec.workspace_bytes
    assert set(manifest["versions"]) == {"numba", "llvmlite"}
    assert sorted(manifest["files"].values()) == sorted(path.name for path in made.manifest.parent.iterdir())
    np.testing.assert_array_equal(np.frombuffer(blob, np.float32)[: quick.u.size], quick.u.ravel())


def test_without_a_linker_there_is_no_library_and_a_reason(
    quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "liblrw_dense.so").write_text("of an earlier build")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    made = build_layer(quick.spec, quick.u, None, tmp_path)
    assert made.library is None
    assert "aarch64-linux-gnu-gcc" in made.note
    assert not (tmp_path / "liblrw_dense.so").exists(), "a library of another build would be worse than none"
    assert "library" not in json.loads(made.manifest.read_text())["files"]
    with pytest.raises(RuntimeError, match="no linker"):
        run_layer(made, quick.x)


def test_a_plain_linker_is_enough(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("aarch64-linux-gnu-ld")
    (tmp_path / "aarch64-linux-gnu-ld").symlink_to(str(shutil.which("aarch64-linux-gnu-ld")))
    monkeypatch.setenv("PATH", str(tmp_path))
    made = built("dense", ARM)
    library, note = link_shared(made.object, tmp_path / "x.so", made.spec, find_target(ARM))
    assert (library, note) == (tmp_path / "x.so", "linked by aarch64-linux-gnu-ld")
    assert read_elf((tmp_path / "x.so").read_bytes()).exported == read_elf(made.object.read_bytes()).exported


def only_a_broken(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave on PATH nothing but a `program` that fails."""
    folder.mkdir()
    (folder / program).write_text("#!/bin/sh\necho disk full >&2\nexit 1\n")
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_failed_build_changes_nothing(quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    build_layer(quick.spec, quick.u, None, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    only_a_broken("aarch64-linux-gnu-gcc", tmp_path / "bin", monkeypatch)
    with pytest.raises(RuntimeError, match=r"(?s)linking liblrw_dense\.so .*disk full"):
        build_layer(quick.spec, quick.u * 2, None, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_clang_that_cannot_link_is_no_linker(quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_a_broken("clang", tmp_path / "bin", monkeypatch)
    made = build_layer(quick.spec, quick.u, None, tmp_path / "out")
    assert made.library is None
    assert made.note.startswith("no linker for aarch64-linux-gnu")
    assert made.note.endswith("disk full")


def test_run_names_the_missing_tool(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(built("dense", ARM), library=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"qemu-aarch64", "aarch64-linux-gnu-gcc"} <= set(missing_tools(ARM))
    with pytest.raises(RuntimeError, match="qemu-aarch64"):
        run_layer(made, built.cases["dense"].x)
    with pytest.raises(ValueError, match=r"x: float64 .*float32 \[1, 5, 6, 7, 8\]"):
        run_layer(made, built.cases["dense"].x.astype(np.float64))
