"""The manifest of an exported network: what it says of layers, and that nothing damaged or foreign is read."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.aot import Artifacts
from lrw_kernels.aot.abi import ABI_VERSION
from verify.programs.exported import ARM, Builder, case

pytestmark = pytest.mark.slow


def test_layers_in_the_manifest_say_what_became_of_each(built: Builder) -> None:
    layers = json.loads(built("every", ARM).manifest.read_text())["layers"]
    nodes = case("every").network.nodes
    assert [(e["name"], e["operator"], e["inputs"], e["size"]) for e in layers] == [
        (n.name, type(n.operator).__name__, [*n.inputs], [*n.size]) for n in nodes
    ]
    by_name = {entry["name"]: entry for entry in layers}
    stem = {"kernel": [3, 7, 7], "stride": [1, 2, 2], "padding": [1, 3, 3], "dilation": [1, 1, 1], "groups": 1}
    assert by_name["stem"].items() >= (stem | {"residual": None, "after": "elu"}).items()
    depthwise = {"dilation": [2, 2, 2], "groups": 4, "residual": "stem", "after": "prelu"}
    assert by_name["depthwise"].items() >= depthwise.items()
    assert by_name["back"].items() >= {"kernel": [3, 3, 4], "stride": [1, 2, 2], "after": None}.items()
    assert by_name["grouped"].items() >= {"residual": "first", "after": "prelu", "padding": [1, 1, 1]}.items()
    assert by_name["hidden"].items() >= {"residual": None, "after": "silu"}.items()
    assert by_name["beyond"].items() >= {"residual": "hidden", "after": "relu"}.items()
    assert by_name["first"].items() >= {"residual": None, "after": "gelu"}.items()
    grouped = next(entry for entry in layers if entry["name"] == "grouped")
    assert [block["channels"] for block in grouped["blocks"]] == [3, 1, 1]
    assert [len(block["kept"]) for block in grouped["blocks"]] == [20, 0, 1]
    assert grouped["tile"] == str(next(n for n in nodes if n.name == "grouped").operator.tile)
    blob = built("every", ARM).weights.stat().st_size
    assert sum(entry["weights_bytes"] for entry in layers) == blob - 64


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
CHECKED = ("abi_version", "name", "target", "inputs", "outputs", "threads", "workspace_bytes", "files")
Where = tuple[str | int, ...]
INSIDE: list[Where] = [("files", key) for key in ("header", "weights", "static", "shared")]
INSIDE += [("weights", key) for key in ("bytes", "sha256")]
INSIDE += [(kind, 0, key) for kind in ("inputs", "outputs") for key in ("name", "node", "size", "is")]
names = st.sampled_from(
    ["../outside", "/etc/passwd", "..", ".", "", "lrw_tiny.h/", "./lrw_tiny.h", "\0", "lrw\0tiny", "a" * 5000, "\ud800"]
)


def holding(values: Any, where: Where) -> Any:
    """What the entry is in."""
    for key in where[:-1]:
        values = values[key]
    return values


@given(st.sampled_from([(key,) for key in CHECKED] + INSIDE), json_values | names)
def test_other_values_are_refused(copied: tuple[Path, str], where: Where, value: Any) -> None:
    path, text = copied
    values = json.loads(text)
    holder = holding(values, where)
    kept = holder[where[-1]]
    holder[where[-1]] = value
    path.write_text(json.dumps(values))
    if loads_or_refuses(path):
        assert type(value) is type(kept), "another value, but a possible one"


@given(st.sampled_from([(key,) for key in CHECKED] + [("weights",)] + [w for w in INSIDE if w[1] != "shared"]))
def test_missing_values_are_refused(copied: tuple[Path, str], where: Where) -> None:
    path, text = copied
    values = json.loads(text)
    del holding(values, where)[where[-1]]
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
