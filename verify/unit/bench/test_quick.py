"""The bench of five minutes: parts in their time, red gates, what is absent, the page beside what is kept of before."""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from bench import networks, pruned, rows, startup
from bench.gate import Red
from bench.overview import history, sheet
from bench.overview.compare import FASTER
from bench.quick import command, parts, running, runs
from bench.quick.parts import PARTS, Part
from bench.quick.running import Progress, go

XEON = rows.read(networks.Row, sheet.RESULTS / "networks_xeon.csv")
PRUNED = pruned.Row("C3D", "1x3x16x112x112", 0.75, 8, 400.0, 100.0, 50.0, 2.0, 1e-6)
WAIT = startup.Row("import lrw, over torch", 0.5, 2.0, 3, 1e-6)
needs_git = pytest.mark.skipif(
    shutil.which("git") is None or not (history.ROOT / ".git").exists(), reason="not in a checkout"
)


class Hours:
    """Progress whose clock stands still but for what cases take."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def taking(self, seconds: float) -> Callable[[], Sequence[rows.Row]]:
        def measure() -> Sequence[rows.Row]:
            self.seconds += seconds
            return [WAIT]

        return measure


def part(name: str, *cases: parts.Case, seconds: float = 10.0) -> Part:
    return replace(PARTS[0], name=name, seconds=seconds, cases=lambda: [*cases])


def test_parts_fit_into_five_minutes() -> None:
    assert sum(part.seconds for part in PARTS) <= 285
    assert [part.name for part in PARTS] == ["start-up", "layers", "networks", "pruned", "training"]


def test_cases_that_would_end_too_late_are_left_out_and_named() -> None:
    clock = Hours()
    asked = [
        part("first", *[(name, clock.taking(4.0)) for name in "abcd"]),
        part("second", ("e", clock.taking(3.0))),
    ]
    stamps = {each.name: {"commit": each.name} for each in asked}
    first, second = go(asked, stamps, clock, 20.0)  # type: ignore[arg-type]
    assert clock.said == ["first: a", "first: b", "second: e"]
    assert first.notes == ["not measured, time was up: first c, d"]
    assert [row.commit for row in first.rows] == ["first", "first"]
    assert (second.notes, len(second.rows)) == ([], 1)


def test_what_a_part_did_not_need_is_there_for_the_next() -> None:
    clock = Hours()
    asked = [part("short", ("a", clock.taking(1.0))), part("long", *[(name, clock.taking(6.0)) for name in "bcd"])]
    _, long = go(asked, {"short": {}, "long": {}}, clock, 20.0)  # type: ignore[arg-type]
    assert (len(long.rows), long.notes) == (3, [])


def test_something_is_said_again_while_a_case_is_long(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(every=0.02) as progress:
        progress.say("layers: a")
        until, said = time.monotonic() + 20, ""
        while said.count("layers: a") < 3 and time.monotonic() < until:
            time.sleep(0.01)
            said += capsys.readouterr().out
    assert re.fullmatch(r"( +\d+ s  layers: a\n)+", said)
    assert said.count("\n") >= 3


def test_peers_and_networks_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.peers, "installed", lambda: ["torch.compile", "OpenVINO"])
    monkeypatch.setattr(parts, "find_spec", lambda name: None if name == "monai" else name)
    assert parts.absent() == [
        "absent, not installed: ONNX Runtime",
        "absent: UNet, monai is not installed",
        "absent: SegResNet, monai is not installed",
        parts.LEFT_OUT,
    ]
    networks_part = next(part for part in PARTS if part.name == "networks")
    assert [name for name, _ in networks_part.cases()] == ["C3D", "r3d_18"]


def test_a_red_gate_ends_the_run_without_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def red() -> Sequence[rows.Row]:
        raise Red("gate: y is off")

    monkeypatch.setattr(command, "PARTS", [part("wrong", ("a", red)), part("next", ("b", Hours().taking(1.0)))])
    assert command.main(["--out", str(tmp_path / "page.html")]) == 1
    out, err = capsys.readouterr()
    assert err == "gate: y is off\n"
    assert "next" not in out
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_could_not_be_written_is_refused_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "go", lambda *_: pytest.fail("measured"))
    monkeypatch.setattr(command.os, "access", lambda *_: False)
    assert command.main(["--out", str(tmp_path / "page.html")]) == 2
    assert capsys.readouterr().err == f"bench: {tmp_path / 'page.html'} cannot be written\n"


def faked(faster: float) -> list[Part]:
    """The parts, with rows that are there already."""
    known = {"networks": [replace(row, lrw_ms=row.lrw_ms / faster) for row in XEON[:4]], "pruned": [PRUNED],
             "start-up": [WAIT]}  # fmt: skip
    return [
        replace(part, cases=lambda rows=known[part.name]: [("all", lambda: rows)])
        for part in PARTS if part.name in known
    ]  # fmt: skip


@needs_git
def test_a_run_is_on_the_page_beside_what_is_committed_and_compared_with_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(runs, "FOLDER", tmp_path / "runs")
    monkeypatch.setattr(command.certificate, "stamp", lambda **_: {"commit": "clean", "machine": "m", "versions": "v"})
    out, head = tmp_path / "page.html", history.resolved("HEAD")
    monkeypatch.setattr(command, "PARTS", faked(1.0))
    assert command.main(["--out", str(out), "--compare", "HEAD"]) == 0
    said = capsys.readouterr().out
    assert f"networks: nothing of {head} to compare with on this machine" in said
    assert "r3d_18" in said
    assert parts.LEFT_OUT in said
    text = out.read_text()
    assert "<h3>this run</h3>" in text
    assert "<h3>Zen 4</h3>" in text
    assert "<td>C3D</td><td>8</td><td>400</td><td>100</td><td>50</td><td>2.00</td>" in text
    assert "<td>import lrw, over torch</td><td>0.50</td>" in text
    assert "<h3>this machine</h3>" not in text, "one run is no history"

    monkeypatch.setattr(command, "PARTS", faked(1.5))
    assert command.main(["--out", str(out), "--compare", "HEAD"]) == 0
    said = capsys.readouterr().out
    assert f"networks since {head}:" in said
    assert len(re.findall(rf"0\.667 +{FASTER}\n", said)) == 4
    text = out.read_text()
    assert f"<h3>networks since {head}</h3>" in text
    assert "<h3>this machine</h3>" in text


@needs_git
def test_runs_are_found_by_commit_and_machine_and_changed_files_are_no_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "FOLDER", tmp_path)
    (waits,), head = faked(1.0)[:1], history.resolved("HEAD")
    for commit, seconds in (("clean", 1.0), ("clean-dirty", 2.0)):
        done = running.Done(waits, [replace(WAIT, seconds=seconds)])
        runs.keep([done], {"start-up": {"commit": commit, "machine": "m"}})
    assert [row.seconds for row in runs.before(waits, head, "m")] == [1.0]
    assert runs.before(waits, head, "another") == []
    assert sorted(commit for commit, _ in runs.past(waits, "m")) == [head, f"{head}-dirty"]
    (tmp_path / head / "start-up.csv").write_text("case,machine\nold,m\n")
    assert runs.before(waits, head, "m") == [], "other columns"
    committed = next(part for part in PARTS if part.name == "networks")
    assert runs.before(committed, head, XEON[0].machine)[0] == XEON[0]
