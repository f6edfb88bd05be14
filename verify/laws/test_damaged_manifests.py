"""Laws of reading manifests: damage is told with the file's name, soon and in little memory.

- a manifest with any damage is refused
- one whose digest fits what was changed, or has none, is refused or describes files that are there and layers that can
  be shown
"""

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from lrw.commands import exported
from lrw_kernels.aot import Artifacts
from lrw_kernels.aot.manifest import manifest_text, read_manifest
from lrw_kernels.aot.ports import Ports
from lrw_kernels.aot.targets import find_target
from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import Copy, Winograd
from lrw_kernels.program.assemble import assemble
from lrw_kernels.winograd import Tile
from verify.damage import FUZZED, damaged, damaged_json, refusal


@dataclass(frozen=True)
class Saved:
    """A path to write damaged manifests to, and what the whole one says."""

    path: Path
    text: str = field(repr=False)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The manifest of a pruned layer with another input and output beside its own, and files that it describes; none of
    them is compiled."""
    folder, target = tmp_path_factory.mktemp("library"), find_target("aarch64-linux-gnu")
    blocks = ((4, (1, 5, 63)), (2, ()))
    weights = tuple(np.ones((len(kept), 3, channels), np.float32) for channels, kept in blocks)
    node = Node("layer", Winograd(Tile.of(2), (1, 1, 1), blocks, weights), (INPUT,), (1, 4, 4, 4, 6))
    inputs, beside = (
        {INPUT: (1, 4, 4, 4, 3), "other": (1, 1, 1, 1, 2)},
        Node("copy", Copy(), ("other",), (1, 1, 1, 1, 2)),
    )
    origins = ("argument x", "argument more['y']", "result[0]", "result[1]")
    network = Network("net", inputs, (node, beside), ("layer", "copy"), origins)
    program = assemble(network, target.machine, 1, target.element)
    files = {what: f"net.{what}" for what in ("header", "weights", "static", "example")}
    for name in (*files.values(), "lrw_threads.c", "lrw_threads.h", "CMakeLists.txt", "main.c"):
        (folder / name).write_bytes(program.weights if name == "net.weights" else b"")
    text = manifest_text(program, Ports.of(network), program.weights, target, files, {"lrw": "1"})
    return Saved(folder / "lrw_net.json", text)


def sealed(values: dict[str, Any]) -> str:
    """The text of `values` with a digest that fits."""
    others = {key: value for key, value in values.items() if key != "digest"}
    found = hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()
    return json.dumps({**others, "digest": found})


def test_the_whole_one_is_read_and_shown(saved: Saved) -> None:
    saved.path.write_text(saved.text)
    assert read_manifest(saved.path) == json.loads(saved.text) == json.loads(sealed(json.loads(saved.text)))
    console = Console(record=True, width=200)
    exported.show(console, Artifacts.load(saved.path), None)
    text = console.export_text()
    assert "0 to 3/64" in text
    assert "\ninput_1: 1x1x1x1x2, argument more['y']\noutput_0: 1x4x4x4x6, result[0]\n" in text


@given(st.data())
@FUZZED
def test_damaged_manifests_are_refused(saved: Saved, data: st.DataObject) -> None:
    raw = data.draw(damaged(saved.text.encode()))
    saved.path.write_bytes(raw)
    said = refusal(lambda: Artifacts.load(saved.path))
    if said is None:  # white space was damaged; or the digest's own key, and then it is a manifest of before
        read = json.loads(raw)
        assert "digest" not in read or read == json.loads(saved.text)
    else:
        assert said.startswith("lrw_net.json: ")


@pytest.mark.parametrize("with_digest", [False, True])
@given(st.data())
@FUZZED
def test_manifests_that_say_other_things_are_refused_or_mean_them(
    saved: Saved, with_digest: bool, data: st.DataObject
) -> None:
    values = {key: value for key, value in json.loads(saved.text).items() if key != "digest"}
    text = data.draw(damaged_json(values))
    with suppress(ValueError, RecursionError, AttributeError):  # not even JSON, for the reader to find
        text = sealed(json.loads(text)) if with_digest else text
    saved.path.write_text(text, errors="surrogatepass")
    found: list[Artifacts] = []
    said = refusal(lambda: found.append(Artifacts.load(saved.path)))
    assert said is None or "lrw_net.json" in said
    for made in found:
        assert all(file.is_file() and file.parent == made.manifest.parent for file in (made.header, made.weights))
        exported.show(Console(record=True, quiet=True), made, None)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a name of other folders": ({"name": "../../net"}, "name: '../../net'; accepted are C identifiers"),
    "a huge workspace": ({"workspace_bytes": 2**50}, "workspace_bytes: .*; accepted is a whole number from 1 to"),
    "one that says no inputs": ({"inputs": None}, "inputs: None; accepted is a list"),
    "no outputs": (
        {"outputs": []},
        r"outputs: \[\]; accepted are one, called output, or several, called output_0 and",
    ),
    "inputs of nulls": ({"inputs": [None]}, "inputs: 0: a JSON NoneType; accepted is an object"),
    "an earlier one": (
        {"input_size": [1, 4, 4, 4, 3]},
        "input_size: is of an earlier lrw; accepted are manifests with",
    ),
    "layers null": ({"layers": None}, "layers: None; accepted is a list"),
    "layers of nulls": ({"layers": [None]}, "layers: 0: a JSON NoneType; accepted is an object"),
    "files in a list": ({"files": ["net.header"]}, "files: .*; accepted is an object"),
    "weights without bytes": ({"weights": {}}, "weights: bytes: None; accepted is a whole number"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_no_library_has_is_named(saved: Saved, name: str) -> None:
    other, message = BAD[name]
    saved.path.write_text(sealed(json.loads(saved.text) | other))
    with pytest.raises(ValueError, match=f"^lrw_net.json: {message}"):
        Artifacts.load(saved.path)


@pytest.mark.parametrize("kind", ["inputs", "outputs"])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("size", [2**20] * 5, "1: size: .*; accepted are activations of up to"),
        ("size", "11111", "1: size: '11111'; accepted are 5 whole numbers"),
        ("size", [1, 1, 1, 0, 2], "1: size: .*; accepted are 5 whole numbers from 1"),
        ("is", None, "1: is: None; accepted is a string"),
        ("node", 3, "1: node: 3; accepted is a string"),
        ("name", ["a"], "1: name: .*; accepted is a string"),
        ("name", "weights", r".*; accepted are one, called .*put, or several, called .*put_0 and so on$"),
    ],
)
def test_what_no_buffer_has_is_named(saved: Saved, kind: str, key: str, value: object, message: str) -> None:
    values = json.loads(saved.text)
    values[kind][1][key] = value
    saved.path.write_text(sealed(values))
    with pytest.raises(ValueError, match=f"^lrw_net.json: {kind}: {message}"):
        Artifacts.load(saved.path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("tile", "F(2x2x2,3x3x3)@0,0,0[0 1 1e9999999;0 1 -1;0 1 -1]", "tile: .* is not of the form"),
        ("tile", None, "layers: 0: tile: None; accepted is a string"),
        ("blocks", "all", "layers: 0: blocks: 'all'; accepted is a list"),
        ("blocks", [{"channels": 4, "kept": [64]}], "kept: position 64 outside"),
        ("blocks", [{"channels": 4, "kept": [["0"]]}], "kept: .* is not a sequence of whole numbers"),
        ("size", [1, 2], "layers: 0: size: .*; accepted are 5 whole numbers"),
        ("weights_bytes", "1", "layers: 0: weights_bytes: '1'; accepted is a whole number"),
        ("operator", None, "layers: 0: operator: None; accepted is a string"),
    ],
)
def test_what_no_layer_has_is_named(saved: Saved, key: str, value: object, message: str) -> None:
    values = json.loads(saved.text)
    values["layers"][0][key] = value
    saved.path.write_text(sealed(values))
    with pytest.raises(ValueError, match=f"^lrw_net.json: {message}"):
        exported.described(Artifacts.load(saved.path), None)


def test_one_changed_entry_is_told_even_where_nobody_reads_it(saved: Saved) -> None:
    saved.path.write_text(saved.text.replace('"steps": ', '"steps": 1'))
    with pytest.raises(ValueError, match=r"^lrw_net\.json: damaged: its entries do not have the digest"):
        Artifacts.load(saved.path)


def test_a_manifest_without_a_digest_is_read(saved: Saved) -> None:
    values = json.loads(saved.text)
    del values["digest"]
    saved.path.write_text(json.dumps(values))
    assert Artifacts.load(saved.path).name == "net"


def test_weights_are_compared_by_size_before_they_are_read(saved: Saved) -> None:
    saved.path.write_text(saved.text)
    weights = saved.path.with_name("net.weights")
    whole = weights.read_bytes()
    try:
        with weights.open("wb") as file:
            file.truncate(2**40)  # a terabyte of holes
        said = refusal(lambda: Artifacts.load(saved.path))
        assert said == f"lrw_net.json: net.weights has {2**40} bytes, not {len(whole)}"
    finally:
        weights.write_bytes(whole)
