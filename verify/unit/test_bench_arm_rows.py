"""The ARM bench from a layer to its row: correctness first, peers that may be missing, the command and its exits."""

import csv
import hashlib
import zipfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bench.arm import command as program
from bench.arm import emulator, measure, ours, rows
from bench.arm.data import values
from bench.arm.emulator import Region
from bench.arm.layers import LAYERS, Whole
from bench.arm.peers import PEERS, install, onnx_model
from bench.arm.program import Program
from bench.arm.table import of
from bench.layers import Layer, kept, select
from lrw_kernels.winograd import Tile
from verify.unit.arm_programs import QEMU, SMALL, counts
from verify.unit.exported_networks import need

pytestmark = pytest.mark.usefixtures("bench_cache")


def test_our_layer_is_measured_behind_its_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*QEMU)
    monkeypatch.setattr(measure.cycles, "total_cycles", lambda *_: 1e6)
    monkeypatch.setattr(rows, "versions", lambda: "some")
    row = measure.measure(measure.our_contenders()[1], SMALL, 60)
    assert row.note == ""
    assert row.error is not None
    assert row.error < 1e-5
    assert 0 < (row.per_mac or 0) < 10
    rows.write(tmp_path / "rows.csv", [row, row])
    with (tmp_path / "rows.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == second
    assert (first["layer"], first["share"], first["macs"]) == ("small", "0.25", str(SMALL.macs))
    assert all(first[name] for name in (*rows.CERTIFICATE, "mac_per_cycle_n1", "l1", "l2"))


def test_a_wrong_result_gives_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Program(("main",), tmp_path, lambda: np.full((1, 2), np.nan, np.float32), lambda: np.ones((1, 2)))
    monkeypatch.setattr(measure.emulator, "count", lambda *_, **__: {1: ran(1), 2: ran(2)})
    monkeypatch.setattr(measure.emulator, "misses", lambda *_, **__: pytest.fail("measured behind a red gate"))
    row = measure.measure(measure.Contender("odd", "1", 1.0, lambda *_: wrong), SMALL, 60)
    assert row.note == "wrong: error nan of the largest output"
    assert row.instructions is None


@pytest.mark.parametrize("with_misses", [True, False])
def test_counts_stay_where_the_cache_model_fails_or_is_left_out(
    with_misses: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: object, **__: object) -> None:
        raise RuntimeError("too slow")

    fine = Program(("main",), tmp_path, lambda: np.ones((1, 2), np.float32), lambda: np.ones((1, 2)))
    monkeypatch.setattr(measure.emulator, "count", lambda *_, **__: {1: ran(1), 2: ran(7)})
    monkeypatch.setattr(measure.emulator, "misses", slow)
    monkeypatch.setattr(measure.cycles, "total_cycles", lambda *_: 1e6)
    row = measure.measure(measure.Contender("odd", "1", 1.0, lambda *_: fine), SMALL, 60, with_misses)
    assert (row.instructions, row.error, row.l1) == (6, 0.0, None)
    assert row.note == ("too slow" if with_misses else "")


def ran(total: int) -> Region:
    return Region(counts(total=total), ())


def test_a_peer_that_cannot_be_installed_says_why_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    contenders = [measure.peer_contender("mnn"), measure.peer_contender("torch")]
    done = program.run([SMALL], contenders, 60, None)
    reason = "missing: apt-get, dpkg-deb (Debian: apt-get install apt dpkg)"
    assert [(row.library, row.note) for row in done] == [("mnn", reason), ("torch", reason)]
    assert f"torch 2.10.0: {reason}" in capsys.readouterr().out
    assert of(done).row_count == 2


def test_without_a_network_each_peer_is_tried_once_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        (tmp_path / tool).write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho no route to host >&2\nexit 100\n')
        (tmp_path / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(install, "_failures", {})
    other = Layer("other", 8, 8, (4, 6, 6))
    done = program.run([SMALL, other], [measure.peer_contender("mnn"), measure.peer_contender("torch")], 60, None)
    reason = "apt-get gave exit status 100: no route to host (it is fetched: is there a network?)"
    assert [row.note for row in done] == [reason] * 4
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith("-o APT::Update::Error-Mode=any update")


def test_wheels_are_installed_by_their_digest_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_INDEX", "DISABLE_PIP_VERSION_CHECK"):
        monkeypatch.setenv(f"PIP_{name}", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    digest = wheel(tmp_path)
    monkeypatch.setattr(install, "LISTS", tmp_path)
    (tmp_path / "good.txt").write_text(f"thing==1.0 --hash=sha256:{digest}\n")
    (tmp_path / "bad.txt").write_text(f"thing==1.0 --hash=sha256:{digest[::-1]}\n")
    site = install.installed_wheels("good")
    assert (site / "thing.py").read_text() == "ANSWER = 42\n"
    with pytest.raises(RuntimeError, match=digest):
        install.installed_wheels("bad")
    assert install.installed_wheels("good") == site
    assert not [path for path in site.parent.iterdir() if path.name.startswith(("bad", "tmp"))]


def wheel(folder: Path) -> str:
    """Write the wheel of a package `thing` for aarch64; its sha256."""
    path = folder / "thing-1.0-cp311-cp311-manylinux_2_28_aarch64.whl"
    tag = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: cp311-cp311-manylinux_2_28_aarch64\n"
    members = {
        "thing.py": "ANSWER = 42\n",
        "thing-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
        "thing-1.0.dist-info/WHEEL": tag,
        "thing-1.0.dist-info/RECORD": "thing.py,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_onnx_model_holds_the_layer() -> None:
    _, weight = values(SMALL)
    model = fields_of(onnx_model.conv3d_model(SMALL, weight))
    graph = fields_of(model[7][0])
    node, tensor = fields_of(graph[1][0]), fields_of(graph[5][0])
    assert node[4] == [b"Conv"]
    assert [fields_of(attribute)[8] for attribute in node[5]] == [[3] * 3, [1] * 6, [1] * 3]
    assert tensor[1] == [8, 4, 3, 3, 3]
    assert tensor[9] == [weight.tobytes()]
    shapes = [
        fields_of(fields_of(fields_of(fields_of(value)[2][0])[1][0])[2][0])[1] for value in (graph[11][0], graph[12][0])
    ]
    assert [[fields_of(size)[1][0] for size in shape] for shape in shapes] == [[1, 4, 4, 6, 6], [1, 8, 4, 6, 6]]


def fields_of(message: bytes) -> dict[int, list[int | bytes]]:
    """The fields of a protocol buffer of numbers and things with a length."""
    found: dict[int, list[int | bytes]] = {}
    rest = iter(message)

    def number() -> int:
        value = shift = 0
        for byte in rest:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        return value

    while rest.__length_hint__():
        key = number()
        value = number()
        found.setdefault(key >> 3, []).append(bytes(islice(rest, value)) if key & 7 == 2 else value)
    return found


def test_a_shape_that_comes_twice_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = []

    def row(contender: measure.Contender, layer: Layer, *_: object) -> rows.Row:
        measured.append(layer.name)
        return rows.Row(layer, contender.library, contender.version, contender.share, instructions=7)

    monkeypatch.setattr(program, "measure", row)
    done = program.run(select("c3d-5", LAYERS), [measure.peer_contender("mnn")], 60, None)
    assert measured == ["c3d-5a"]
    assert [(row.layer.name, row.instructions) for row in done] == [("c3d-5a", 7), ("c3d-5b", 7)]


def test_whole_networks_are_for_this_library_with_all_columns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def row(contender: measure.Contender, layer: Layer, *_: object) -> rows.Row:
        return rows.Row(layer, contender.library, contender.version, contender.share)

    monkeypatch.setattr(program, "measure", row)
    contenders = [*measure.our_contenders(), measure.peer_contender("mnn")]
    done = program.run(select("whole", LAYERS), contenders, 60, None)
    assert [(row.library, row.share) for row in done] == [("lrw", 1.0), ("lrw half", 1.0)]
    assert program.run(select("whole", LAYERS), contenders[-1:], 60, None) == []
    with pytest.raises(RuntimeError, match="all columns only"):
        ours.build(select("whole", LAYERS)[0], 0.25, tmp_path)


def test_a_whole_network_runs_behind_the_same_main(tmp_path: Path) -> None:
    need(*QEMU)
    built = ours.build(Whole("small", 2, 3, (8, 16, 16)), 1.0, tmp_path)
    assert emulator.one_run(emulator.count(built, limit=300)).counts.total > 0
    assert measure._error(built, 1e-5) > 0


def test_the_committed_rows_have_every_layer_by_mnn_and_each_peer_on_the_reference_layers() -> None:
    with (Path(program.__file__).parents[1] / "results" / "arm_peers.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    found = {(row["layer"], row["library"]): row for row in read}
    assert len(found) == len(read)
    reference = {(layer.name, peer) for layer in select("ref", LAYERS) for peer in PEERS}
    single = [layer for layer in LAYERS if not isinstance(layer, Whole)]
    assert {(layer.name, "mnn") for layer in single} | reference <= found.keys()
    for row in read:
        assert float(row["per_mac"]) == pytest.approx(int(row["instructions"]) / int(row["macs"]), rel=1e-3)
        assert float(row["error"]) < 0.01


def test_a_share_of_the_columns_is_drawn_the_same_every_time() -> None:
    tile = Tile.of(4)
    assert len(kept(tile, 0.25)) == 54
    assert kept(tile, 0.25) == kept(tile, 0.25)
