"""`lrw export` from the outside: what it takes and what it prints."""

import json
import math
import os
import re
import shutil
import stat
import subprocess
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
from lrw_kernels.aot import Artifacts, missing_tools
from verify.unit.export.calls import NAMED, NATIVE, ROOT, SMALL, UMASK, module, named, run
from verify.unit.trace.nets import Gated, gated, settled

pytestmark = pytest.mark.slow


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


def test_files_have_the_modes_that_the_umask_gives(built: tuple[Path, dict[str, Any]]) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in built[0].iterdir()}
    assert modes == {name: (0o777 if name.endswith(".so") else 0o666) & ~UMASK for name in modes}
    assert "lrw_small.json" in modes


def test_json_is_the_manifest_with_paths_sizes_and_the_check(built: tuple[Path, dict[str, Any]]) -> None:
    folder, said = built
    manifest = json.loads((folder / "lrw_small.json").read_text())
    assert {key: said[key] for key in manifest} == manifest
    assert said["inputs"] == [{"name": "input", "node": "input", "size": [2, 4, 5, 6, 2], "is": "argument input"}]
    assert said["outputs"] == [{"name": "output", "node": "2", "size": [2, 4, 5, 6, 2], "is": "result"}]
    assert (said["threads"], said["target"]) == (2, NATIVE)
    assert said["layers"][0]["tile"].startswith("F(2x2x4,3x3x3)")
    paths = {what: folder.parent / path for what, path in said["paths"].items()}
    assert set(paths) >= {"manifest", "header", "weights", "static", "example", "threads", "cmake"}
    assert {what: path.stat().st_size for what, path in paths.items()} == said["bytes"]
    assert sorted(path.name for path in paths.values()) == sorted(path.name for path in folder.iterdir())
    assert (said["check"]["how"], said["check"]["limit"], said["check"]["passed"]) == ("ran natively", 0.01, True)
    assert said["check"]["error"] < 1e-5


def test_tables_show_layers_sizes_and_files(built: tuple[Path, dict[str, Any]]) -> None:
    console = Console(width=150, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    exported.show(console, Artifacts.load(built[0] / "lrw_small.json"), exported.Check("ran natively", 2e-7, 0.01))
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


@pytest.mark.parametrize(
    ("error", "words"), [(0.02, "2.0e-02 of the largest output"), (math.nan, "nan"), (math.inf, "inf")]
)
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_a_library_that_gives_other_numbers_fails_the_check_and_stays(
    error: float, words: str, flags: tuple[str, ...], built: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(command, "export", lambda *_, **__: Artifacts.load(built[0] / "lrw_small.json"))
    monkeypatch.setattr(command, "compare", lambda *_: ("ran natively", error))
    monkeypatch.chdir(built[0].parent)
    code = main(["export", "small.pt", "--net", "mine:small", *SMALL, "--target", NATIVE, "--check", *flags])
    said = capsys.readouterr()
    assert code == 1
    assert said.err.startswith(f"lrw export: --check: largest error {words}")
    assert said.err.endswith("accepted is up to 0.01; the library stays in lrw-export\n")
    if flags:
        check = json.loads(said.out, parse_constant=pytest.fail)["check"]
        assert check == {
            "how": "ran natively", "error": error if math.isfinite(error) else None, "limit": 0.01, "passed": False
        }  # fmt: skip


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


@pytest.mark.parametrize("name", nets.NAMES)
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


def test_help_names_every_option() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "200")
        done = run(ROOT, "--help")
    for option in "net in-channels classes width size batch tile target threads name out check json".split():
        assert f"--{option}" in done.stdout


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of torch.export.save, and one that is none."""
    folder = tmp_path_factory.mktemp("programs")
    net, x = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU()).eval(), torch.randn(1, 2, 4, 5, 6)
    torch.export.save(torch.export.export(net, (x,)), folder / "small.pt2")
    torch.export.save(torch.export.export(settled(Gated()), gated()), folder / "gated.pt2")
    torch.export.save(torch.export.export(Sum().eval(), (x,), {"y": x}), folder / "named.pt2")
    torch.export.save(torch.export.export(Sum().eval(), (x, x.long())), folder / "whole.pt2")
    (folder / "damaged.pt2").write_bytes(b"PK\x03\x04 and no more")
    return folder


class Sum(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


def test_a_file_of_torch_export_says_all_that_is_needed(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = missing_tools(NATIVE)
    if lacking:
        pytest.skip(f"missing: {', '.join(lacking)}")
    flags = ("--target", NATIVE, "--out", str(tmp_path / "made"), "--check", "--json")
    assert main(["export", str(programs / "small.pt2"), *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["name"], said["inputs"][0]["size"], said["outputs"][0]["size"]) == (
        "small", [1, 4, 5, 6, 2], [1, 4, 5, 6, 4]
    )  # fmt: skip
    assert said["check"]["error"] < 1e-5


def test_a_file_of_several_tensors_is_a_library_of_as_many(
    programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = missing_tools(NATIVE)
    if lacking:
        pytest.skip(f"missing: {', '.join(lacking)}")
    call = ["export", str(programs / "gated.pt2"), "--target", NATIVE, "--out", str(tmp_path / "made"), "--check"]
    assert main([*call, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [port["is"] for port in said["inputs"]] == [
        "argument image", "argument batch['mask']", "argument batch['ids']"
    ]  # fmt: skip
    assert [port["size"] for port in said["outputs"]] == [[1, 4, 6, 6, 4], [1, 1, 1, 1, 3], [1, 4, 6, 6, 1]]
    assert said["check"]["error"] < 1e-5
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    exported.show(console, Artifacts.load(tmp_path / "made" / "lrw_gated.json"), None)
    console.file.close()
    lines = console.export_text().splitlines()
    assert "input_1: 1x4x6x6x1, argument batch['mask']" in lines
    assert "output_1: 1x1x1x1x3, result['others'][0]" in lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("small.pt2", "--in-channels", "2"), "--in-channels: .*small.pt2 says it, as the network was exported"),
        (("small.pt2", "--batch", "2"), "--batch: .*small.pt2 says it"),
        (("named.pt2",), r"named.pt2 was exported with arguments by name \(y\); accepted are those by place"),
        (("whole.pt2",), r"whole.pt2: example_input\[1\]: torch.int64 on cpu; accepted is torch.float32"),
        (("damaged.pt2",), "damaged.pt2 is no file of torch.export.save this torch can read"),
        (("none.pt2",), "No such file or directory: .*none.pt2"),
    ],
)
def test_what_files_of_torch_export_do_not_go_with(
    arguments: tuple[str, ...], message: str, programs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = arguments
    assert main(["export", str(programs / name), *rest, "--out", str(tmp_path / "made")]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "made").exists()
