"""`lrw export` from the outside: what it accepts, what it prints, what it refuses, and Ctrl-C."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

import lrw
from lrw import nets
from lrw.cli import main
from lrw.commands import export as command
from lrw.commands import exported
from lrw.commands.networks import NAMES
from lrw_kernels.aarch64 import Artifacts, missing_tools

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
NATIVE = "x86_64-linux-gnu"
MODULE = """\
from torch import nn
number = 3
def small():
    import beside
    return nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1))
def odd():
    return nn.Sequential(nn.Hardswish(), nn.Sequential(nn.PReLU()))
def wrong():
    return 3
def failing():
    raise RuntimeError("not today")
"""
SMALL = ("--in-channels", "2", "--size", "4x5x6")
NAMED = ("--in-channels", "1", "--classes", "2", "--width", "2", "--size", "8x8x8")


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "lrw.cli", "export", *arguments]
    return subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, check=False)


def named(name: str) -> nn.Module:
    torch.manual_seed(0)
    if name == "unet3d":
        return nets.UNet3D(1, 2, width=2)
    return nets.build(name, in_channels=1, classes=2, input_size=(8, 8, 8), width=2)


def module(folder: Path, name: str) -> str:
    """A module of MODULE's functions in `folder`, and weights of its `small` and of its `odd` network."""
    (folder / f"{name}.py").write_text(MODULE)
    (folder / "beside.py").write_text("")
    scope: dict[str, Any] = {}
    exec(MODULE.replace("import beside", ""), scope)
    for function in ("small", "odd"):
        torch.save(scope[function]().state_dict(), folder / f"{function}.pt")
    return name


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The one library built here: of a function's network, from a folder that is not on Python's path."""
    folder = tmp_path_factory.mktemp("export")
    lacking = missing_tools(NATIVE)
    if lacking:
        pytest.skip(f"missing: {', '.join(lacking)}")
    place = f"{module(folder, 'mine')}:small"
    flags = ("--tile", "2x2x4", "--threads", "2", "--target", NATIVE, "--batch", "2", "--out", "made")
    done = run(folder, "small.pt", "--net", place, *SMALL, *flags, "--check", "--json")
    assert done.returncode == 0, done.stderr
    return folder / "made", json.loads(done.stdout)


def test_json_is_the_manifest_with_paths_sizes_and_the_check(built: tuple[Path, dict[str, Any]]) -> None:
    folder, said = built
    manifest = json.loads((folder / "lrw_small.json").read_text())
    assert {key: said[key] for key in manifest} == manifest
    assert (said["input_size"], said["output_size"]) == ([2, 4, 5, 6, 2], [2, 4, 5, 6, 2])
    assert (said["threads"], said["target"]) == (2, NATIVE)
    assert said["layers"][0]["tile"].startswith("F(2x2x4,3x3x3)")
    paths = {what: folder.parent / path for what, path in said["paths"].items()}
    assert set(paths) >= {"manifest", "header", "weights", "static", "example", "threads", "cmake"}
    assert {what: path.stat().st_size for what, path in paths.items()} == said["bytes"]
    assert sorted(path.name for path in paths.values()) == sorted(path.name for path in folder.iterdir())
    assert said["check"]["how"] == "ran natively"
    assert said["check"]["error"] < 1e-5


def test_tables_show_layers_sizes_and_files(built: tuple[Path, dict[str, Any]]) -> None:
    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    exported.show(console, Artifacts.load(built[0] / "lrw_small.json"), exported.Check("ran natively", 2e-7))
    console.file.close()
    text = console.export_text()
    for words in (
        "F(2x2x4, 3x3x3)", "96/96", "Direct", "KiB, workspace", "threads: at most 2",
        "check: ran natively, largest error 2.0e-07", "lrw_small.weights", "CMakeLists.txt",
    ):  # fmt: skip
        assert words in text


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_c_of_the_documents_compiles(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    pieces = re.findall(r"```c\n(.*?)```", (ROOT / "docs" / "arm.md").read_text(), flags=re.S)
    assert len(pieces) == 2
    options = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only", f"-I{built[0]}"]
    for i, piece in enumerate(pieces):
        (tmp_path / f"{i}.c").write_text(piece.replace("c3d", "small"))
        done = subprocess.run(["cc", *options, f"{i}.c"], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_blocks_that_keep_different_numbers_show_the_least_and_the_most() -> None:
    blocks = [{"channels": 2, "kept": [1, 2]}, {"channels": 2, "kept": []}, {"channels": 1, "kept": [3]}]
    assert exported._kept(blocks) == "0 to 2"


class Asked(Exception):
    """Raised in place of compiling."""

    def __init__(self, net: nn.Module, x: Tensor, out: str, **how: Any) -> None:
        self.net, self.x, self.out, self.how = net, x, out, how


def asked(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Asked:
    """What the command would compile."""

    def stop(*given: Any, **how: Any) -> None:
        raise Asked(*given, **how)

    monkeypatch.setattr(command, "export", stop)
    with pytest.raises(Asked) as caught:
        main(["export", *arguments])
    return caught.value


def assert_same(given: nn.Module, net: nn.Module) -> None:
    """Of the same modules, with the same tensors."""
    assert [type(module) for module in given.modules()] == [type(module) for module in net.modules()]
    tensors = net.state_dict()
    assert given.state_dict().keys() == tensors.keys()
    for name, tensor in given.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    assert not given.training


def converted(net: nn.Module) -> nn.Module:
    return lrw.to_winograd(net, 2)


STAGES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "dense": lambda net: net,
    "converted": converted,
    "low rank": lambda net: lrw.add_low_rank(converted(net), 1),
    "compressed": lambda net: lrw.compress(converted(net)),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_saved_network_of_any_stage_is_taken(stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = STAGES[stage](named("c3d")).eval()
    path = lrw.save(net, tmp_path / "net.safetensors")
    given = asked(monkeypatch, str(path), "--net", "c3d", *NAMED)
    assert_same(given.net, net)
    assert given.how == {"target": "aarch64-linux-gnu", "name": "c3d", "threads": 1, "tile": "auto"}
    assert given.out == "lrw-export"


@pytest.mark.parametrize("name", NAMES)
def test_every_named_network_is_taken(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    net = named(name).eval()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    flags = ("--batch", "2", "--name", "other", "--tile", "3")
    given = asked(monkeypatch, str(tmp_path / "net.pt"), "--net", name, *NAMED, *flags)
    assert tuple(given.x.shape) == (2, 1, 8, 8, 8)
    assert_same(given.net, net)
    assert (given.how["name"], given.how["tile"]) == ("other", 3)


def test_what_is_said_goes_before_what_a_run_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config, data = {"net": "r3d18", "width": 2}, {"channels": 1, "classes": 2, "size": [8, 8, 8]}
    (tmp_path / "report.json").write_text(json.dumps({"config": config, "data": data}))
    lrw.save(lrw.to_winograd(named("r3d18"), 2), tmp_path / "compressed.safetensors")
    given = asked(monkeypatch, str(tmp_path), "--size", "8x8x16")
    assert tuple(given.x.shape) == (1, 1, 8, 8, 16)
    assert given.how["name"] == "r3d18"


C3D = ("c3d.pt", "--net", "c3d", *NAMED)
OWN = ("small.pt", *SMALL, "--net")
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
    "--net: 'vgg'; accepted are c3d, r3d18, unet3d and PACKAGE.MODULE:FUNCTION": ("c3d.pt", "--net", "vgg", *NAMED),
    "--net: nowhere:small: ModuleNotFoundError": (*OWN, "nowhere:small"),
    "--net: own:nothing: AttributeError": (*OWN, "own:nothing"),
    "--net: own:number is a int; accepted is a function": (*OWN, "own:number"),
    "--net: own:wrong gives a int": (*OWN, "own:wrong"),
    "--net: own:failing raised RuntimeError: not today": (*OWN, "own:failing"),
    "--width: own:small is called without arguments": (*OWN, "own:small", "--width", "2"),
    "--width: -1; accepted are whole numbers": (*C3D, "--width", "-1"),
    "--batch: 0; accepted are whole numbers": (*C3D, "--batch", "0"),
    "--size: '8x8' is not DxHxW": (*C3D, "--size", "8x8"),
    "--size: '8x0x8' is not DxHxW": (*C3D, "--size", "8x0x8"),
    "--tile: 'large' is neither": (*C3D, "--tile", "large"),
    "tile: 9 outputs per axis": (*C3D, "--tile", "9"),
    "threads: 0; accepted are integers from 1": (*C3D, "--threads", "0"),
    "target: 'riscv64' is not known; accepted are": (*C3D, "--target", "riscv64"),
    "--check: running a library for arm64-apple-ios here needs": (*C3D, "--check", "--target", "arm64-apple-ios"),
    "name: 'a-b'": (*C3D, "--name", "a-b"),
    "--out: taken is a file": (*C3D, "--out", "taken"),
    "aten.hardswish at '0' [1, 2, 4, 5, 6]: is none of this version's operators; aten.prelu at '1.0'": (
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
    assert stderr.strip() == "lrw export: stopped; a library is written whole or not at all"
    assert not list((tmp_path / "scratch").glob("lrw-*"))
    assert not (tmp_path / "out").exists()


def test_help_names_every_option() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        done = run(ROOT, "--help")
    for option in "net in-channels classes width size batch tile target threads name out check json".split():
        assert f"--{option}" in done.stdout
