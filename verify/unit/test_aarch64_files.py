"""Files of an exported network: the manifest describes them, and is checked when read; failures change nothing."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.aarch64 import Artifacts, build, build_network, missing_tools, run_network
from lrw_kernels.aarch64.abi import ABI_VERSION
from lrw_kernels.aarch64.archive import archive
from lrw_kernels.aarch64.elf import read_elf
from lrw_kernels.aarch64.link import link_shared
from lrw_kernels.aarch64.network import Network
from lrw_kernels.aarch64.targets import TARGETS, find_target
from verify.unit.exported_networks import ARM, THREADS, TINY, Builder, case, need


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
    made = build_network(quick, tmp_path / "new" / "folder", threads=THREADS)
    manifest = json.loads(made.manifest.read_text())
    assert (manifest["abi_version"], manifest["target"], manifest["threads"]) == (ABI_VERSION, ARM, THREADS)
    assert (manifest["input_size"], manifest["output_size"]) == ([1, 1, 2, 3, 2], [1, 1, 2, 3, 3])
    blob = made.weights.read_bytes()
    assert manifest["weights"] == {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    assert manifest["workspace_bytes"] == made.workspace_bytes
    assert manifest["cpu_features"] == ["Armv8.0-A", "Advanced SIMD"]
    assert set(manifest["versions"]) == {"numba", "llvmlite", "numpy"}
    others = {"lrw_threads.c", "lrw_threads.h", "CMakeLists.txt", "lrw_tiny.json"}
    assert {*manifest["files"].values()} | others == set(contents(made.manifest.parent))
    assert Artifacts.load(made.manifest) == replace(made, note="")


def test_layers_in_the_manifest_say_what_became_of_each(built: Builder) -> None:
    layers = json.loads(built("every", ARM).manifest.read_text())["layers"]
    nodes = case("every").network.nodes
    assert [(e["name"], e["operator"], e["size"]) for e in layers] == [
        (n.name, type(n.operator).__name__, [*n.size]) for n in nodes
    ]
    grouped = next(entry for entry in layers if entry["name"] == "grouped")
    assert [block["channels"] for block in grouped["blocks"]] == [3, 1, 1]
    assert [len(block["kept"]) for block in grouped["blocks"]] == [20, 0, 1]
    assert grouped["tile"] == str(next(n for n in nodes if n.name == "grouped").operator.tile)
    blob = built("every", ARM).weights.stat().st_size
    assert sum(entry["weights_bytes"] for entry in layers) == blob - 64


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
    library, note = link_shared(tmp_path / "x.o", tmp_path / "x.so", "tiny", find_target(ARM))
    assert (library, note) == (tmp_path / "x.so", "linked by aarch64-linux-gnu-ld")
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
    with pytest.raises(ValueError, match=r"x: float64 .*float32 \[1, 1, 2, 3, 2\]"):
        run_network(made, x.astype(np.float64))
    with pytest.raises(ValueError, match=r"x: float32 \[1, 1, 2, 3\]; accepted"):
        run_network(made, x[..., 0])
    assert missing_tools("arm64-apple-ios") == ["a machine for arm64-apple-ios"]


def test_an_unknown_target_or_number_of_threads_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"^target: 'mips' is not known; accepted are {', '.join(TARGETS)}$"):
        build_network(TINY, tmp_path / "out", target="mips")
    with pytest.raises(ValueError, match=r"^threads: 0; accepted are integers from 1"):
        build_network(TINY, tmp_path / "out", threads=0)
    with pytest.raises(ValueError, match=r"^target: 'mips'"):
        missing_tools("mips")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="session")
def copied(built: Builder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The manifest of a copy, to be damaged, and its text."""
    folder = tmp_path_factory.mktemp("damaged") / "net"
    shutil.copytree(built("tiny", ARM).manifest.parent, folder)
    (folder.parent / "outside").write_text("not to be read")
    return folder / "lrw_tiny.json", (folder / "lrw_tiny.json").read_text()


def loads_or_refuses(path: Path) -> bool:
    """Whether it was loaded; any other exception than those two is the test's failure."""
    try:
        made = Artifacts.load(path)
    except (ValueError, OSError):
        return False
    assert all(file.parent == path.parent for file in (made.header, made.weights, made.static))
    return True


texts = st.one_of(
    st.tuples(st.just("cut"), st.integers(0, 3000), st.just("")),
    st.tuples(st.just("put"), st.integers(0, 3000), st.text(min_size=1, max_size=4)),
    st.tuples(st.just("remove"), st.integers(0, 3000), st.just("")),
)


@given(st.lists(texts, min_size=1, max_size=3))
def test_damaged_text_is_refused_or_says_nothing_else(copied: tuple[Path, str], damages: list[Any]) -> None:
    path, text = copied
    for kind, at, new in damages:
        text = {"cut": text[:at], "put": text[:at] + new + text[at:], "remove": text[:at] + text[at + 1 :]}[kind]
    path.write_text(text, errors="surrogatepass")
    assert isinstance(loads_or_refuses(path), bool)


@given(st.binary(max_size=64))
def test_bytes_are_no_manifest(copied: tuple[Path, str], data: bytes) -> None:
    copied[0].write_bytes(data)
    assert not loads_or_refuses(copied[0])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
CHECKED = ("abi_version", "name", "target", "input_size", "output_size", "threads", "workspace_bytes", "files")
INSIDE = [("files", key) for key in ("header", "weights", "static", "shared")]
INSIDE += [("weights", key) for key in ("bytes", "sha256")]
names = st.sampled_from(
    ["../outside", "/etc/passwd", "..", ".", "", "lrw_tiny.h/", "./lrw_tiny.h", "\0", "lrw\0tiny", "a" * 5000, "\ud800"]
)


@given(st.sampled_from([(key,) for key in CHECKED] + INSIDE), json_values | names)
def test_other_values_are_refused(copied: tuple[Path, str], where: tuple[str, ...], value: Any) -> None:
    path, text = copied
    values = json.loads(text)
    holder = values[where[0]] if len(where) == 2 else values
    kept = holder[where[-1]]
    holder[where[-1]] = value
    path.write_text(json.dumps(values))
    if loads_or_refuses(path):
        assert type(value) is type(kept), "another value, but a possible one"


@given(st.sampled_from([(key,) for key in CHECKED] + [("weights",)] + [w for w in INSIDE if w[1] != "shared"]))
def test_missing_values_are_refused(copied: tuple[Path, str], where: tuple[str, ...]) -> None:
    path, text = copied
    values = json.loads(text)
    del (values[where[0]] if len(where) == 2 else values)[where[-1]]
    path.write_text(json.dumps(values))
    assert not loads_or_refuses(path)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", ".", "", "absent", "\0"])
@pytest.mark.parametrize("which", ["header", "weights", "static", "shared"])
def test_files_anywhere_else_are_refused(copied: tuple[Path, str], which: str, name: str) -> None:
    path, text = copied
    values = json.loads(text)
    values["files"][which] = name
    path.write_text(json.dumps(values))
    with pytest.raises(
        ValueError, match=rf"^lrw_tiny\.json: files: {which}: .*; accepted are names of files beside it"
    ):
        Artifacts.load(path)


def test_another_version_is_refused(copied: tuple[Path, str]) -> None:
    path, text = copied
    path.write_text(text.replace(f'"abi_version": {ABI_VERSION}', f'"abi_version": {ABI_VERSION + 1}'))
    with pytest.raises(ValueError, match=rf"abi_version: {ABI_VERSION + 1}; this lrw reads {ABI_VERSION}"):
        Artifacts.load(path)


def test_an_absent_manifest_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Artifacts.load(tmp_path / "lrw_tiny.json")


def test_weights_that_are_short_or_damaged_are_refused(copied: tuple[Path, str]) -> None:
    path, text = copied
    path.write_text(text)
    weights = Artifacts.load(path).weights
    blob = weights.read_bytes()
    try:
        for size in (0, 64, len(blob) - 1):
            weights.write_bytes(blob[:size])
            with pytest.raises(ValueError, match=rf"lrw_tiny\.weights has {size} bytes, not {len(blob)}"):
                Artifacts.load(path)
        weights.write_bytes(blob[:-1] + bytes([blob[-1] ^ 1]))
        with pytest.raises(ValueError, match="does not have the checksum"):
            Artifacts.load(path)
    finally:
        weights.write_bytes(blob)


def test_an_archive_refuses_names_it_has_no_room_for() -> None:
    assert archive("a" * 15, b"odd", {"x"}).endswith(b"odd\n")
    with pytest.raises(ValueError, match="archive: member name"):
        archive("a" * 16, b"", {"x"})
