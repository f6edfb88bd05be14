"""`lrw accelerate` from the outside: what it takes, prints and draws, and what it refuses."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrw import peers
from lrw.cli import main
from lrw.commands import accelerate as command
from verify.unit.export.calls import ENVIRONMENT, ROOT

MODULE = """\
from torch import nn
import torch
def small():
    return nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 2, 1))
class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Conv3d(2, 4, 3)
    def forward(self, x, y):
        return self.inner(x + y).cumsum(2)
def both():
    return Both()
def unfit():
    return nn.LogSigmoid()
def wrong():
    return 3
"""
SMALL = ("--net", "accelerated_here:small", "--input", "1x2x6x7x8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module of networks, a file of torch.export.save, and one that is none."""
    folder = tmp_path_factory.mktemp("accelerate")
    (folder / "accelerated_here.py").write_text(MODULE)
    scope: dict[str, Any] = {"__name__": "accelerated_there"}
    exec(MODULE, scope)
    torch.export.save(torch.export.export(scope["small"]().eval(), (torch.randn(1, 2, 6, 7, 8),)), folder / "small.pt2")
    (folder / "damaged.pt2").write_bytes(b"PK\x03\x04 and no more")
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command prints, which succeeds."""
    capsys.readouterr()
    assert main(["accelerate", "--peers", "none", *arguments, "--no-measure", "--check"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("net", ["accelerated_here:small", "small.pt2"])
def test_the_report_is_printed(
    net: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    lines = said(capsys, "--net", net, *SMALL[2:]).splitlines()
    assert [line.split()[1] for line in lines[:-1]] == ["Winograd", "Direct"]
    assert "times as fast" in lines[-1]


def test_json_of_several_inputs_on_two_threads(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    before = torch.get_num_threads()
    shape = ("--input", "2x2x6x7x8")
    found = json.loads(said(capsys, "--net", "accelerated_here:both", *shape, *shape, "--threads", "2", "--json"))
    assert torch.get_num_threads() == before
    assert (found["threads"], found["last"]) == (2, "the program")
    assert [part["name"] for part in found["parts"] if part["why"]] == ["cumsum"]
    assert found["speedup"] == pytest.approx(found["before_ms"] / found["after_ms"])


def test_others_take_turns_and_those_that_refuse_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(net: nn.Module, args: peers.Args) -> peers.Call:
        raise RuntimeError("no\nmore")

    def eager(net: nn.Module, args: peers.Args) -> peers.Call:
        return lambda: [net(*args)]

    monkeypatch.chdir(folder)
    monkeypatch.setattr(peers, "MAKERS", {"torch.compile": eager, "OpenVINO": refuses})
    some = ("--peers", "openvino, Torch.compile")
    first, second = said(capsys, *SMALL, *some).splitlines()[-2:]
    assert re.fullmatch(r"in turns with others: torch.compile .* ms, accelerated .* ms, .* times as fast as .*", first)
    assert second == "OpenVINO does not take it: RuntimeError: no"
    found = json.loads(said(capsys, *SMALL, *some, "--json"))["peers_ms"]
    assert found["torch.compile"] > 0
    assert found["OpenVINO"] is None


def test_what_differs_fails_the_check(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(command, "LIMIT", 0.0)
    assert main(["accelerate", *SMALL, "--peers", "none", "--no-measure", "--check"]) == 1
    assert "lrw accelerate: --check: error" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["torch.compile", "OpenVINO", "ONNX Runtime"])
def test_peers_give_what_the_network_does(name: str) -> None:
    if name not in peers.installed():
        pytest.skip(f"{name} is not installed")
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv3d(2, 3, 3), nn.ReLU()).eval(), torch.randn(1, 2, 5, 6, 7)
    call = peers.made(peers.MAKERS[name], net, (x,))
    assert not isinstance(call, str), call
    (y,) = call()
    torch.testing.assert_close(torch.as_tensor(y), net(x).detach(), rtol=0, atol=1e-5)


def test_the_parts_are_drawn(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="no figure without matplotlib")
    monkeypatch.chdir(folder)
    assert "times as fast" in said(capsys, *SMALL, "--figure", str(tmp_path / "parts.svg"))
    assert "times as fast" in (tmp_path / "parts.svg").read_text()


REFUSED: dict[str, tuple[str, ...]] = {
    "--net: 'vgg'; accepted are PACKAGE.MODULE:FUNCTION and FILE.pt2": ("--net", "vgg", *SMALL[2:]),
    "No such file or directory: 'nowhere.pt2'": ("--net", "nowhere.pt2", *SMALL[2:]),
    "--net: damaged.pt2 is no file of torch.export.save this torch can read": ("--net", "damaged.pt2", *SMALL[2:]),
    "--net: nowhere:small: ModuleNotFoundError": ("--net", "nowhere:small", *SMALL[2:]),
    "--net: accelerated_here:wrong gives something of type int": ("--net", "accelerated_here:wrong", *SMALL[2:]),
    "--net: none of it can be computed by kernels": ("--net", "accelerated_here:unfit", *SMALL[2:]),
    "--net: torch.export cannot follow it": (*SMALL[:2], "--input", "1x3x6x7x8"),
    "--input: 99999x99999x99999x99999: cannot be made here": (*SMALL[:2], "--input", "99999x99999x99999x99999"),
    "--rtol: -1.0; accepted are positive numbers": (*SMALL, "--rtol", "-1"),
    "argument --peers: 'tvm' is none of torch.compile, OpenVINO, ONNX Runtime": (*SMALL, "--peers", "tvm"),
    "--threads: 0; accepted are whole numbers from 1": (*SMALL, "--threads", "0"),
    "--figure: 'parts.gif'; accepted are files of .png, .pdf, .svg": (*SMALL, "--figure", "parts.gif"),
    "'1x2x0' is not NxCxDxHxW": (*SMALL[:2], "--input", "1x2x0"),
    "the following arguments are required: --input": SMALL[:2],
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_refused_is_named(
    message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    try:
        code: object = main(["accelerate", *REFUSED[message], "--no-measure"])
    except SystemExit as left:  # argparse's own
        code = left.code
    found = capsys.readouterr()
    assert (code, found.out) == (2, "")
    assert message in found.err


def test_a_missing_matplotlib_is_said_before_anything_is_timed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(command, "accelerate", pytest.fail)
    assert main(["accelerate", *SMALL, "--figure", "parts.png"]) == 2
    assert "lrw accelerate: the figure needs matplotlib, which is not installed" in capsys.readouterr().err


def test_as_a_process_stdout_has_the_report_alone(folder: Path) -> None:
    call = [sys.executable, "-m", "lrw.cli", "accelerate", "--net", "small.pt2", *SMALL[2:], "--no-measure", "--json"]
    done = subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["error"] < 1e-5
    assert "Warning" not in done.stderr


def test_help_names_every_option() -> None:
    call = [sys.executable, "-m", "lrw.cli", "accelerate", "--help"]
    environment = {**ENVIRONMENT, "COLUMNS": "200"}
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
    for option in "net input rtol threads no-measure figure json".split():
        assert f"--{option}" in done.stdout
