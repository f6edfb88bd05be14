"""`lrw export`: what it refuses, how it fails, and Ctrl-C; nothing is left behind."""

import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import lrw
from lrw.cli import main
from lrw.commands import export as command
from lrw_kernels.network.graph import Network
from verify.unit.export.calls import ENVIRONMENT, NAMED, NATIVE, SMALL, module, named

C3D = ("c3d.pt", "--net", "c3d", *NAMED)
OWN = ("small.pt", *SMALL, "--net")
HUGE, ENDLESS = ("--size", "99999x99999x99999"), ("--size", f"1x1x{10**21}")
REFUSED: dict[str, tuple[str, ...]] = {
    "no file nowhere.pt": ("nowhere.pt", *C3D[1:]),
    "small.pt does not fit c3d": ("small.pt", *C3D[1:]),
    "damaged.pt holds no state dict": ("damaged.pt", *C3D[1:]),
    "skeleton: has no layer 'conv1'": ("c3d.safetensors", "--net", "r3d18", *NAMED),
    "empty holds no report.json; accepted is the folder of a finished lrw compress": ("empty",),
    "report.json is not a report this version can read": ("strange",),
    "--net: is needed, unless WEIGHTS is the folder": C3D[:1],
    "--classes: is needed": ("c3d.pt", "--net", "c3d", "--in-channels", "1", "--size", "8x8x8"),
    "--in-channels: is needed": ("small.pt", "--net", "own:small", "--size", "8x8x8"),
    "--size: is needed": ("small.pt", "--net", "own:small", "--in-channels", "2"),
    "--net: 'vgg'; accepted are c3d, r3d18, unet3d, PACKAGE.MODULE:FUNCTION": ("c3d.pt", "--net", "vgg", *NAMED),
    "--net: nowhere:small: ModuleNotFoundError": (*OWN, "nowhere:small"),
    "--net: own:nothing: AttributeError": (*OWN, "own:nothing"),
    "--net: own:number is of type int; accepted is a function": (*OWN, "own:number"),
    "--net: own:wrong gives something of type int": (*OWN, "own:wrong"),
    "--net: own:leaving raised SystemExit: 3": (*OWN, "own:leaving"),
    "--net: own:failing raised RuntimeError: not today": (*OWN, "own:failing"),
    "--width: own:small is called without arguments": (*OWN, "own:small", "--width", "2"),
    "--width: -1; accepted are whole numbers": (*C3D, "--width", "-1"),
    "--batch: 0; accepted are whole numbers": (*C3D, "--batch", "0"),
    "--size: '8x8' is not DxHxW": (*C3D, "--size", "8x8"),
    "--size: '8x0x8' is not DxHxW": (*C3D, "--size", "8x0x8"),
    "--tile: 'large' is neither": (*C3D, "--tile", "large"),
    "--tile: 9 outputs per axis": (*C3D, "--tile", "9"),
    "--size: 99999x99999x99999: the network or its input cannot be made here": (*OWN, "own:small", *HUGE),
    "--size: 1x1x1000000000000000000000: the network": (*OWN, "own:small", *ENDLESS),
    "--threads: 0; accepted are integers from 1 to 256": (*C3D, "--threads", "0"),
    "--threads: 257; accepted are integers from 1 to 256": (*C3D, "--threads", "257"),
    "--target: 'riscv64' is not known; accepted are": (*C3D, "--target", "riscv64"),
    "--check: running a library for arm64-apple-ios here needs": (*C3D, "--check", "--target", "arm64-apple-ios"),
    "--name: 'a-b'": (*C3D, "--name", "a-b"),
    "--name: 300 characters; accepted are up to 200": (*C3D, "--name", "a" * 300),
    "--out: taken is a file": (*C3D, "--out", "taken"),
    "--out: taken/x cannot be written to (Not a directory)": (*C3D, "--out", "taken/x"),
    "--out: /proc/x cannot be written to (No such file or directory)": (*C3D, "--out", "/proc/x"),
    "--out: /proc cannot be written to (": (*C3D, "--out", "/proc"),
    "cannot be written to (File name too long)": (*C3D, "--out", "new/" + "a" * 300),
    "aten.log_sigmoid at '0' [1, 2, 4, 5, 6]: is none of this version's operators; aten.layer_norm at '1.0'": (
        "odd.pt", "--net", "own:odd", *SMALL
    ),
    "unrecognized arguments: --bogus": (*C3D, "--bogus"),
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("refused")
    module(folder, "own")
    net = named("c3d")
    torch.save(net.state_dict(), folder / "c3d.pt")
    lrw.save(lrw.to_winograd(net, 2), folder / "c3d.safetensors")
    for name in ("damaged.pt", "taken"):
        (folder / name).write_text("mine")
    for name in ("empty", "strange"):
        (folder / name).mkdir()
    (folder / "strange" / "report.json").write_text('{"config": {}}')
    return folder


def contents(folder: Path) -> list[Path]:
    """All there is, but for what Python keeps of the modules it imported."""
    return sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_is_named_in_a_line_and_nothing_is_written(
    message: str, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(files)
    before, path = contents(files), list(sys.path)
    try:
        code = main(["export", "--target", NATIVE, *REFUSED[message]])
    except SystemExit as left:  # argparse's own
        code = left.code
    said = capsys.readouterr()
    assert (code, said.out) == (2, "")
    assert message in said.err.splitlines()[-1]
    assert said.err.startswith("usage:") or len(said.err.splitlines()) == 1
    assert contents(files) == before
    assert sys.path == path


def test_a_compiler_that_fails_is_told_from_what_is_refused(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("lowering c3d for x gave exit status 1")

    monkeypatch.setattr(command, "export", broken)
    monkeypatch.chdir(files)
    assert main(["export", *C3D]) == 1
    assert capsys.readouterr().err == "lrw export: lowering c3d for x gave exit status 1\n"


@pytest.mark.parametrize("place", ["out", "new/out"])
def test_a_build_that_fails_leaves_no_folder(
    place: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(network: Network, out: Path, **_: object) -> None:
        assert out.is_dir()
        raise RuntimeError("lowering gave exit status 1")

    monkeypatch.setattr("lrw_kernels.aot.build_network", broken)
    monkeypatch.chdir(files)
    assert main(["export", *C3D, "--out", str(tmp_path / place)]) == 1
    assert capsys.readouterr().err == "lrw export: lowering gave exit status 1\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["out", "new/out"])
def test_a_full_disk_is_said_in_a_line_and_leaves_nothing(
    place: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def lowered(*_: object) -> bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        return bytes(1000)

    monkeypatch.setattr("lrw_kernels.aot.build.lower", lowered)
    monkeypatch.chdir(files)
    try:
        assert main(["export", *C3D, "--out", str(tmp_path / place)]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = "a library is written whole or not at all"
    assert capsys.readouterr().err == f"lrw export: [Errno 27] File too large: '{tmp_path / place}'; {said}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")])
def test_too_little_memory_is_said_in_a_line(
    error: Exception, files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def starved(*_: object) -> None:
        raise error

    monkeypatch.setattr(command, "_run", starved)
    assert main(["export", *C3D]) == 1
    assert re.fullmatch(r"lrw export: out of memory \(.+\)\n", capsys.readouterr().err)


def test_stopped_while_it_starts_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(commands: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "add", stopped)
    assert main(["export", *C3D]) == 130
    assert capsys.readouterr().err == "\nlrw: stopped; nothing was begun\n"


@pytest.mark.slow
def test_stopped_while_compiling_nothing_is_left(files: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "lrw.cli", "export", *C3D, "--out", str(tmp_path / "out")]
    (tmp_path / "scratch").mkdir()
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path / "scratch")}
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True, env=environment, cwd=files) as process:
        while process.poll() is None and not list((tmp_path / "scratch").glob("lrw-lower-*/code.json")):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
    assert process.returncode == 130, stderr
    said = [line for line in stderr.strip().splitlines() if not line.startswith("lrw: compiling kernels")]
    assert said == ["lrw export: stopped; a library is written whole or not at all"]
    assert not list((tmp_path / "scratch").glob("lrw-*"))
    assert not (tmp_path / "out").exists()
