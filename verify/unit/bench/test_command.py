"""The commands of the benches: what they refuse in one line, and their exits."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from bench import networks
from bench.arm import command as arm
from bench.arm import measure
from bench.arm.rows import Row, described
from bench.cpu import command as cpu
from bench.evidence import command as evidence
from bench.quick import command as quick
from verify.unit.bench.arm_programs import SMALL

pytestmark = pytest.mark.usefixtures("bench_cache")
ROOT = Path(__file__).parents[3]
TUNED = ROOT / "kernels" / "lrw_kernels" / "triton" / "tuned.csv"  # no table of speed-ups
NAMES = ("lrw", "lrw half", "mnn")
FILE = "accepted is a file in a folder that exists"
TABLE = "accepted is such a table, or a file that is not there yet"
COMMANDS = {name: f"{name}.command" for name in ("arm", "cpu", "evidence", "gpu", "quick")} | {"networks": "networks"}


@pytest.mark.parametrize(
    ("command", "line", "message"),
    [
        ("arm.command", "--layers c4d", "--layers: 'c4d' begins no layer's name; there are ref-16, .*"),
        ("arm.command", "--peers mnn,ncnn", "--peers: 'mnn,ncnn'; accepted are mnn, onnxruntime, torch"),
        ("arm.command", "--only both", "--only: invalid choice: 'both' .*"),
        ("arm.command", "--limit -3", "--limit: '-3'; accepted are positive numbers"),
        ("arm.command", "--csv no/such/folder.csv", f"--csv: .*; {FILE}"),
        ("cpu.command", "--layers ref", "--layers: 'ref' begins no layer's name; there are c3d-2a, .*"),
        ("cpu.command", "--tile big", "--tile: invalid literal .*"),
        ("cpu.command", "--tile 9", "--tile: .*"),
        (
            "networks",
            "--networks r3d_18,vgg",
            "--networks: 'r3d_18,vgg'; accepted are r3d_18, r2plus1d_18, .*",
        ),
        ("quick.command", "--only layers,speed", "--only: 'layers,speed'; accepted are start-up, layers, .*"),
        ("quick.command", "--out no/such/page.html", f"--out: .*; {FILE}"),
        ("quick.command", "--compare nothing", "--compare: 'nothing' is no commit here"),
        ("evidence.command", "--workers 0", "--workers: '0'; accepted are whole numbers from 1"),
        ("evidence.command", "--device nosuch", "--device: 'nosuch': .*"),
        ("gpu.command", "--layers c4d", "--layers: 'c4d' begins no layer's name; there are c3d-2a, .*"),
        ("gpu.command", "--precisions half,fp8", "--precisions: 'half,fp8'; accepted are half, tf32, ieee"),
        ("gpu.command", "--minutes 0", "--minutes: '0'; accepted are positive numbers"),
        ("gpu.command", "--seconds-per-figure nan", "--seconds-per-figure: 'nan'; accepted are positive numbers"),
        ("gpu.command", "--processes -1", "--processes: '-1'; accepted are whole numbers from 0"),
        ("gpu.command", "--table .", f"--table: '.'; {FILE}"),
        ("gpu.command", f"--table {__file__}", f"--table: .*; {TABLE}"),
        ("gpu.command", f"--table {TUNED}", f"--table: .*; {TABLE}"),
    ],
)
def test_wrong_arguments_give_one_line(
    command: str, line: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("gpu"):
        pytest.importorskip("triton", reason="the bench measures Triton kernels")
    with pytest.raises(SystemExit) as stopped:
        import_module(f"bench.{command}").main(line.split())
    assert stopped.value.code == 2
    assert re.fullmatch(rf"[\w.]+: argument {message}\n", capsys.readouterr().err)


@pytest.mark.parametrize("main", [arm.main, cpu.main, networks.main, evidence.main, quick.main])
def test_arguments_have_their_whole_names(main: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--he"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: --he\n")


@pytest.mark.parametrize("command", ["arm", "cpu", "evidence", "gpu", "networks", "quick"])
def test_control_c_while_torch_is_still_imported_ends_in_one_line(command: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt\n")
    paths = os.pathsep.join([str(tmp_path), str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, "-c", f"from bench.command import guarded; guarded('it', 'bench.{COMMANDS[command]}')"],
        env=os.environ | {"PYTHONPATH": paths}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\nit: stopped\n")


def test_missing_tools_are_named_with_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert arm.main([]) == 2
    packages = "gcc gcc-aarch64-linux-gnu llvm-22 qemu-user"
    missing = "gcc, qemu-aarch64, llvm-mc-22, llvm-mca-22, aarch64-linux-gnu-gcc"
    assert capsys.readouterr().err == f"bench_arm: missing: {missing} (Debian: apt-get install {packages})\n"


@pytest.mark.parametrize("failing", NAMES)
def test_only_a_row_of_ours_that_fails_is_a_failure(failing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = [
        Row(**described(SMALL), library=name, version="1", share=1.0, note="no" if name == failing else "")
        for name in NAMES
    ]
    monkeypatch.setattr(arm.tools, "require", lambda *_: None)
    monkeypatch.setattr(arm, "run", lambda *_: failed)
    assert arm.main([]) == (0 if failing == "mnn" else 1)
    assert {*measure.OURS} == {*NAMES[:2]}


@pytest.mark.parametrize("where", ["csv", "cache", "open cache"])
def test_what_cannot_be_written_is_refused_before_anything_is_measured(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(arm.tools, "require", lambda *_: None)
    monkeypatch.setattr(arm, "stamp", dict)
    monkeypatch.setattr(arm, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    if where != "csv":
        monkeypatch.setenv("LRW_BENCH_CACHE", str(tmp_path / "file" if where == "cache" else tmp_path))
        tmp_path.chmod(0o777 if where == "open cache" else 0o700)
    assert arm.main(["--csv", "/proc/rows.csv"] if where == "csv" else []) == 2
    expected = {
        "csv": "[Errno 2] No such file or directory: '/proc/rows.csv'",
        "cache": f"cache folder {tmp_path}/file (LRW_BENCH_CACHE): Not a directory",
        "open cache": f"cache folder {tmp_path} (LRW_BENCH_CACHE): others may write to {tmp_path} (mode 0777)",
    }
    assert capsys.readouterr().err == f"bench_arm: {expected[where]}\n"
