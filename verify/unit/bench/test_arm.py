"""The ARM bench from a layer to its row: correctness first, peers that may be missing, the command and its exits."""

import hashlib
import zipfile
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.arm import command as program
from bench.arm import emulator, measure, ours, rows
from bench.arm.data import values
from bench.arm.emulator import Block, Region
from bench.arm.peers import install, onnx_model
from bench.arm.program import Program
from bench.layers import ARM, Layer, Whole, picked
from bench.rows import Writer, read
from verify.programs.exported import need
from verify.unit.bench.arm_programs import QEMU, SMALL

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("bench_cache")]


def test_our_layer_is_measured_behind_its_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need(*QEMU)
    monkeypatch.setattr(measure.cycles, "total_cycles", lambda *_: 1e6)
    row = measure.measure(measure.our_contenders()[1], SMALL, 60)
    assert row.note == ""
    assert row.error is not None
    assert row.error < 1e-5
    assert 0 < (row.per_mac or 0) < 10
    with Writer(tmp_path / "rows.csv", {}) as writer:
        writer.write(row, row)
    first, second = read(rows.Row, tmp_path / "rows.csv")
    assert first == second
    assert (first.layer, first.share, first.macs) == ("small", 0.25, SMALL.macs)
    assert None not in (first.mac_per_cycle_n1, first.l1, first.l2)


def test_a_wrong_result_gives_no_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Program(("main",), tmp_path, lambda: np.full((1, 2), np.nan, np.float32), lambda: np.ones((1, 2)))
    monkeypatch.setattr(measure.emulator, "count", lambda *_, **__: {1: ran(1), 2: ran(2)})
    monkeypatch.setattr(measure.emulator, "misses", lambda *_, **__: pytest.fail("measured behind a red gate"))
    row = measure.measure(measure.Contender("odd", "1", 1.0, lambda *_: wrong), SMALL, 60)
    assert row.note == "gate: output holds values nobody wrote, or overflow"
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
    return Region((Block(total, (0,)),))


def test_a_peer_that_cannot_be_installed_says_why_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    contenders = [measure.peer_contender("mnn"), measure.peer_contender("torch")]
    done = program.run([SMALL], contenders, 60, None)
    reason = "missing: apt-get, dpkg-deb (Debian: apt-get install apt dpkg)"
    assert [(row.library, row.note) for row in done] == [("mnn", reason), ("torch", reason)]
    assert f"torch 2.10.0: {reason}" in capsys.readouterr().out


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


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layers that a command measures, which are given rows without numbers."""
    found: list[str] = []

    def row(contender: measure.Contender, layer: Layer, *_: Any) -> rows.Row:
        found.append(layer.name)
        own = contender.library, contender.version, contender.share
        return rows.Row(*rows.described(layer).values(), *own, instructions=7)

    monkeypatch.setattr(program, "measure", row)
    return found


def test_a_shape_that_comes_twice_is_measured_once(measured: list[str]) -> None:
    done = program.run(picked("c3d-5a c3d-5b"), [measure.peer_contender("mnn")], 60, None)
    assert measured == ["c3d-5a"]
    assert [(row.layer, row.instructions) for row in done] == [("c3d-5a", 7), ("c3d-5b", 7)]


@pytest.mark.usefixtures("measured")
def test_whole_networks_are_for_this_library_with_all_columns(tmp_path: Path) -> None:
    contenders = [*measure.our_contenders(), measure.peer_contender("mnn")]
    done = program.run([ARM[-1]], contenders, 60, None)
    assert [(row.library, row.share) for row in done] == [("lrw", 1.0), ("lrw half", 1.0)]
    assert {row.library for row in done} == {*measure.OURS}
    assert program.run([ARM[-1]], contenders[-1:], 60, None) == []
    with pytest.raises(RuntimeError, match="all columns only"):
        ours.build(ARM[-1], 0.25, tmp_path)


def test_a_whole_network_runs_behind_the_same_main(tmp_path: Path) -> None:
    need(*QEMU)
    built = ours.build(Whole("small", 2, 3, (8, 16, 16)), 1.0, tmp_path)
    assert emulator.one_run(emulator.count(built, limit=300)).total > 0
    assert measure.error_of(built, 1e-5) > 0
