"""The command of the ARM bench: what it refuses in one line, and its exits."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.arm import command as program
from bench.arm import measure, rows
from verify.unit.arm_programs import SMALL

pytestmark = pytest.mark.usefixtures("bench_cache")
NAMES = ("lrw", "lrw half", "mnn")


def test_our_rows_are_those_of_our_contenders() -> None:
    assert {contender.library for contender in measure.our_contenders()} == {*measure.OURS} == {*NAMES[:2]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "c4d"], "argument --layers: 'c4d' begins no layer's name; there are ref-16, .*"),
        (["--peers", "mnn,ncnn"], "argument --peers: 'mnn,ncnn'; accepted are mnn, onnxruntime, torch"),
        (["--only", "both"], "argument --only: invalid choice: 'both' .*"),
        (["--limit", "-3"], "argument --limit: '-3'; accepted are positive numbers"),
        (["--csv", "no/such/folder.csv"], "argument --csv: .*; accepted is a file in a folder that exists"),
        (["--speed"], "unrecognized arguments: --speed"),
    ],
)
def test_wrong_arguments_give_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        program.main(arguments)
    assert stopped.value.code == 2
    assert re.fullmatch(f"bench_arm: {message}\n", capsys.readouterr().err)


def test_missing_tools_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program.main([]) == 2
    packages = "gcc gcc-aarch64-linux-gnu llvm-22 qemu-user"
    missing = "gcc, qemu-aarch64, llvm-mc-22, llvm-mca-22, aarch64-linux-gnu-gcc"
    assert capsys.readouterr().err == f"bench_arm: missing: {missing} (Debian: apt-get install {packages})\n"


def test_control_c_ends_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", stopped)
    assert program.main([]) == 130
    assert capsys.readouterr().err == "\nbench_arm: stopped\n"


@pytest.mark.parametrize("failing", ["lrw", "lrw half", "mnn"])
def test_only_a_row_of_ours_that_fails_is_a_failure(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [rows.Row(SMALL, name, "1", 1.0, note="no" if name == failing else "") for name in NAMES]
    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", lambda *_: failed)
    assert program.main([]) == (0 if failing == "mnn" else 1)


def test_control_c_while_torch_is_still_imported_ends_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    paths = os.pathsep.join([str(tmp_path), *map(os.path.abspath, sys.path)])
    command = [sys.executable, "-m", "bench.arm"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nbench_arm: stopped\n")


@pytest.mark.parametrize("where", ["csv", "cache"])
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    if where == "cache":
        monkeypatch.setenv("LRW_BENCH_CACHE", str(tmp_path / "file"))
    assert program.main(["--csv", "/proc/rows.csv"] if where == "csv" else []) == 2
    expected = "--csv /proc/rows.csv: " if where == "csv" else f"cache folder {tmp_path}/file (LRW_BENCH_CACHE): "
    assert re.fullmatch(rf"bench_arm: {re.escape(expected)}[\w ]+\n", capsys.readouterr().err)


def test_a_cache_others_may_write_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setenv("LRW_BENCH_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    assert program.main([]) == 2
    said = f"bench_arm: cache folder {tmp_path} (LRW_BENCH_CACHE): others may write to {tmp_path} (mode 0777)\n"
    assert capsys.readouterr().err == said


def test_a_file_that_cannot_be_written_any_more_gives_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(program.tools, "require", lambda *_: None)
    monkeypatch.setattr(program, "run", full)
    assert program.main([]) == 2
    assert capsys.readouterr().err == "bench_arm: [Errno 28] No space left on device\n"


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("earlier")
    rows.probe(tmp_path / "rows.csv")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
