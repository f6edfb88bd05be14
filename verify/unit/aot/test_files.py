"""Files of an exported network: the manifest describes them, nothing stale stays, failures change nothing."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aot import Artifacts, build, build_network, missing_tools, run_network
from lrw_kernels.aot.abi import ABI_VERSION
from lrw_kernels.aot.archive import archive
from lrw_kernels.aot.link import link_shared
from lrw_kernels.aot.targets import TARGETS, find_target
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.network.graph import Network
from verify.programs.exported import ARM, THREADS, TINY, Builder, case, need

pytestmark = pytest.mark.slow


def object_of(made: Artifacts) -> bytes:
    """The archive's last member."""
    data = made.static.read_bytes()
    start = data.index(b"\x7fELF")
    return data[start : start + int(data[start - 12 : start - 2])]


@pytest.fixture
def quick(built: Builder, monkeypatch: pytest.MonkeyPatch) -> Network:
    """The smallest network, lowered already: what follows is about files."""
    code = object_of(built("tiny", ARM))
    monkeypatch.setattr(build, "lower", lambda code_of, target: code)
    return TINY


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_manifest_describes_the_files(quick: Network, tmp_path: Path) -> None:
    made = build_network(quick, tmp_path / "new" / "folder", threads=THREADS, versions={"lrw": "7"})
    manifest = json.loads(made.manifest.read_text())
    assert (manifest["abi_version"], manifest["target"], manifest["threads"]) == (ABI_VERSION, ARM, THREADS)
    assert manifest["inputs"] == [{"name": "input", "node": "input", "size": [1, 1, 2, 3, 2], "is": ""}]
    assert manifest["outputs"] == [{"name": "output", "node": "only", "size": [1, 1, 2, 3, 3], "is": ""}]
    blob = made.weights.read_bytes()
    assert manifest["weights"] == {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    assert manifest["workspace_bytes"] == made.workspace_bytes
    assert manifest["cpu_features"] == ["Armv8.0-A", "Advanced SIMD"]
    assert set(manifest["versions"]) == {"numba", "llvmlite", "numpy", "lrw"} | ({"linker"} if made.shared else set())
    assert manifest["versions"]["lrw"] == "7"
    others = {"lrw_threads.c", "lrw_threads.h", "CMakeLists.txt", "lrw_tiny.json"}
    assert {*manifest["files"].values()} | others == set(contents(made.manifest.parent))
    assert Artifacts.load(made.manifest) == replace(made, note="")


def test_without_a_linker_there_is_no_library_and_a_reason(
    quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    made = build_network(quick, tmp_path)
    assert made.shared is None
    assert "aarch64-linux-gnu-gcc" in made.note
    assert "shared" not in json.loads(made.manifest.read_text())["files"]


def test_libraries_of_an_earlier_build_do_not_stay_beside_the_new_files(
    quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stale in ("liblrw_tiny.so", "lrw_tiny.o", "liblrw_tiny.a"):
        (tmp_path / stale).write_text("of an earlier build")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    made = build_network(quick, tmp_path)
    assert {path.name for path in tmp_path.glob("*lrw_tiny.*")} == {
        "liblrw_tiny.a", "lrw_tiny.h", "lrw_tiny.json", "lrw_tiny.weights"
    }, "a library of another build would be worse than none"  # fmt: skip
    assert made.static.read_bytes().startswith(b"!<arch>")


def test_a_folder_with_another_network_is_refused_before_anything_is_compiled(
    quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_network(quick, tmp_path)
    before = contents(tmp_path)
    monkeypatch.setattr(build, "lower", lambda *_: pytest.fail("compiled"))
    with pytest.raises(
        ValueError, match=r"^out: .* holds another network \(lrw_tiny\.json\); accepted is another folder"
    ):
        build_network(replace(quick, name="other"), tmp_path)
    assert contents(tmp_path) == before


def test_a_plain_linker_is_enough(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("aarch64-linux-gnu-ld")
    (tmp_path / "aarch64-linux-gnu-ld").symlink_to(str(shutil.which("aarch64-linux-gnu-ld")))
    monkeypatch.setenv("PATH", str(tmp_path))
    code = object_of(built("tiny", ARM))
    (tmp_path / "x.o").write_bytes(code)
    linked = link_shared(tmp_path / "x.o", tmp_path / "x.so", "tiny", find_target(ARM))
    assert (linked.library, linked.note) == (tmp_path / "x.so", "linked by aarch64-linux-gnu-ld")
    assert re.fullmatch(r"GNU ld .*\d", linked.version)
    assert read_elf((tmp_path / "x.so").read_bytes()).exported == read_elf(code).exported


def only_a_broken(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave on PATH nothing but a `program` that fails."""
    folder.mkdir()
    (folder / program).write_text("#!/bin/sh\necho disk full >&2\nexit 1\n")
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_failed_build_changes_nothing(quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    build_network(quick, out)
    before = contents(out)
    only_a_broken("aarch64-linux-gnu-gcc", tmp_path / "bin", monkeypatch)
    with pytest.raises(RuntimeError, match=r"(?s)linking liblrw_tiny\.so .*disk full"):
        build_network(quick, out, threads=2)
    assert contents(out) == before


def test_a_failed_build_leaves_no_folder_of_its_own(
    quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only_a_broken("aarch64-linux-gnu-gcc", tmp_path / "bin", monkeypatch)
    (tmp_path / "theirs").mkdir()
    for out in ("new/folder", "theirs"):
        with pytest.raises(RuntimeError, match="linking"):
            build_network(quick, tmp_path / out)
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "theirs"}


def test_a_clang_that_cannot_link_is_no_linker(quick: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_a_broken("clang", tmp_path / "bin", monkeypatch)
    made = build_network(quick, tmp_path / "out")
    assert made.shared is None
    assert made.note.startswith("no linker for aarch64-linux-gnu")
    assert made.note.endswith("disk full")


def test_run_names_the_missing_tool(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = built("tiny", ARM), case("tiny").x
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"qemu-aarch64", "aarch64-linux-gnu-gcc"} <= set(missing_tools(ARM))
    with pytest.raises(RuntimeError, match="qemu-aarch64"):
        run_network(made, x)
    with pytest.raises(ValueError, match=r"input: float64 .*float32 \[1, 1, 2, 3, 2\]"):
        run_network(made, x.astype(np.float64))
    with pytest.raises(ValueError, match=r"input: float32 \[1, 1, 2, 3\]; accepted"):
        run_network(made, x[..., 0])
    with pytest.raises(ValueError, match="inputs: 2; accepted are 1"):
        run_network(made, x, x)
    assert missing_tools("arm64-apple-ios") == ["a machine for arm64-apple-ios"]


def test_an_unknown_target_or_number_of_threads_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^target: 'mips' is not known; accepted are {', '.join(TARGETS)}$"):
        build_network(TINY, tmp_path / "out", target="mips")
    with pytest.raises(ValueError, match=r"^threads: 0; accepted are integers from 1"):
        build_network(TINY, tmp_path / "out", threads=0)
    with pytest.raises(ValueError, match=r"^target: 'mips'"):
        missing_tools("mips")
    assert not (tmp_path / "out").exists()


def test_an_archive_refuses_names_it_has_no_room_for() -> None:
    assert archive("a" * 15, b"odd", {"x"}).endswith(b"odd\n")
    with pytest.raises(ValueError, match="archive: member name"):
        archive("a" * 16, b"", {"x"})
