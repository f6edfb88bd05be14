"""`lrw compress` from the outside: a whole small run, interruption and resume, wrong flags."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from torch import nn

import lrw
from lrw import nets
from lrw.checkpoint import read, read_state_dict
from lrw.cli import main
from lrw.job import JobConfig, finish, state
from lrw.layers import winograd_layers
from lrw.progress import Reporter
from lrw_kernels.aot import find_target
from lrw_kernels.aot.ports import Port
from verify.unit.job.small import volumes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}


def command(folder: Path, *extra: str) -> list[str]:
    data = folder.parent / "data.npz"
    if not data.exists():
        volumes(data)
    small = "--width 4 --epochs 4 --batch-size 16 --rank 4 --target x86_64-linux-gnu".split()
    return [sys.executable, "-m", "lrw.cli", "compress", "--data", str(data), "--out", str(folder), *small, *extra]


def run(folder: Path, *extra: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, *extra), capture_output=True, text=True, env=ENVIRONMENT, cwd=folder.parent, check=False
    )


def interrupted(folder: Path, after: str, *extra: str) -> str:
    """Start a run and stop it with Ctrl-C after a line that holds `after`; returns what it said from then on."""
    whole = command(folder, *extra)
    with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=folder.parent) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if after in line:
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stderr = process.stderr.read()
        assert process.wait() == 130, stderr
    return stderr


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    folder = tmp_path_factory.mktemp("job") / "run"
    done = run(folder, "--json")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_report_holds_all_that_was_promised(finished: tuple[Path, dict[str, object]]) -> None:
    folder, report = finished
    assert json.loads((folder / "report.json").read_text()) == report
    assert list(report["accuracy"]) == ["dense", "finetuned", "pruned", "retrained", "compressed"]
    assert report["accuracy"]["dense"]["auc"] > 0.9
    assert report["accuracy"]["compressed"] == pytest.approx(report["accuracy"]["retrained"], abs=1e-4)
    for layer in report["layers"]:
        assert layer["kept"] == layer["columns"] - round(0.75 * layer["columns"])
        assert layer["stored"] == layer["spatial"] * layer["kept"] // 27
        assert 0 < layer["multiplies"] < layer["direct_multiplies"]
        assert layer["conv3d_ms"] > 0
        assert layer["lrw_ms"] > 0
    trained, total = report["parameters"]["retrained"]
    assert trained < total
    dense, fast, small = report["networks"]
    assert (dense["name"], fast["name"], small["name"]) == ("dense", "dense, accelerated", "compressed, accelerated")
    assert small["bytes"] < dense["bytes"] == fast["bytes"]
    assert small["multiplies"] < dense["multiplies"]
    assert all(row["ms_quartiles"][0] <= row["ms"] <= row["ms_quartiles"][1] for row in report["networks"])
    assert dense["faster"] == 1
    assert [entry["stage"] for entry in report["history"]] == ["train"] * 4 + ["finetune"] + ["retrain"] * 2


def test_distillation_follows_the_dense_network(finished: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    """With all of the loss; its value is in test_schedule.py."""
    volumes(tmp_path / "data.npz")
    done = run(tmp_path / "run", "--json", "--distill", "1.0", "--export", "none")
    assert done.returncode == 0, done.stderr
    history = [entry for entry in json.loads(done.stdout)["history"] if entry["stage"] != "train"]
    plain = [entry for entry in finished[1]["history"] if entry["stage"] != "train"]
    assert [entry["stage"] for entry in history] == [entry["stage"] for entry in plain]
    assert all(entry["loss"] != other["loss"] for entry, other in zip(history, plain, strict=True))


def test_a_cut_alone_can_be_asked_for(finished: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    """What is fitted after the cut starts nearer to what the network gave before."""
    volumes(tmp_path / "data.npz")
    done = run(tmp_path / "run", "--json", "--no-calibration", "--export", "none")
    assert done.returncode == 0, done.stderr
    cut, fitted = json.loads(done.stdout)["accuracy"], finished[1]["accuracy"]
    assert cut["finetuned"] == fitted["finetuned"]
    drift = [abs(found["pruned"]["loss"] - found["finetuned"]["loss"]) for found in (cut, fitted)]
    assert drift[1] < drift[0]


def test_saved_network_loads_and_predicts(finished: tuple[Path, dict[str, object]]) -> None:
    folder, report = finished
    skeleton = nets.build("c3d", in_channels=1, classes=2, input_size=(8, 8, 8), width=4)
    net = lrw.load(folder / "compressed.safetensors", skeleton).eval()
    assert net(torch.zeros(1, 1, 8, 8, 8)).isfinite().all()
    assert Path(report["files"]["figure"]).stat().st_size > 10_000


def test_exported_network_agrees_with_torch(finished: tuple[Path, dict[str, object]]) -> None:
    exported = finished[1]["export"]
    assert Path(exported["header"]).exists()
    if exported["library"] is None:
        pytest.skip(f"no linker here: {exported['note']}")
    if exported["error"] is None:
        pytest.skip(f"the library does not run on this machine: {exported['check']}")
    assert exported["error"] < 1e-5


def test_its_folder_is_all_that_export_needs(
    finished: tuple[Path, dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def stop(*arguments: object, **options: object) -> None:
        given.extend((*arguments, options))
        raise RuntimeError("far enough")

    monkeypatch.setattr("lrw.commands.export.export", stop)
    assert main(["export", str(finished[0]), "--out", "elsewhere"]) == 1
    net, x, out, options = given
    assert (tuple(x.shape), out, options["name"]) == ((1, 1, 8, 8, 8), "elsewhere", "c3d")
    kept = {name: layer.geometry.columns for name, layer in winograd_layers(net).items()}
    assert kept == {row["name"]: row["kept"] for row in finished[1]["layers"]}


def test_tables_show_every_layer(finished: tuple[Path, dict[str, object]]) -> None:
    done = run(finished[0], "--resume", "--quiet")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    for text in (
        "conv5b",
        "16/64",
        "columns dropped",
        "compressed, loaded back",
        "times as fast",
        "kept: ",
        "report.png",
    ):
        assert text in done.stdout


def test_interrupted_run_resumes_to_the_same_result(finished: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stderr = interrupted(folder, "finetune 1/1")
    assert "--resume goes on from it" in stderr
    stopped = state.read(folder)
    assert stopped is not None
    assert not stopped.finished

    refused = run(folder)
    assert refused.returncode == 2
    assert "holds an unfinished run; --resume goes on with it" in refused.stderr
    other = run(folder, "--resume", "--sparsity", "0.5")
    assert other.returncode == 2
    assert "sparsity: 0.5; the run in" in other.stderr

    done = run(folder, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy"] == finished[1]["accuracy"]
    assert report["history"] == finished[1]["history"]
    assert [r["kept"] for r in report["layers"]] == [r["kept"] for r in finished[1]["layers"]]


def test_a_plan_can_say_what_goes(tmp_path: Path) -> None:
    """Tiles and columns of each layer, cut at once; a stopped run goes on to the same network, by the options
    in its folder."""
    plan = ("--multiplies", "0.05", "--export", "none")
    whole = run(tmp_path / "whole", "--json", *plan)
    assert whole.returncode == 0, whole.stderr
    report = json.loads(whole.stdout)
    assert list(report["accuracy"]) == ["dense", "pruned", "retrained", "compressed"]
    assert [entry["stage"] for entry in report["history"]] == ["train"] * 4 + ["retrain"] * 2
    assert len({row["kept"] / row["columns"] for row in report["layers"]}) > 1
    interrupted(tmp_path / "run", "retrain 1/2", *plan)
    resume = [sys.executable, "-m", "lrw.cli", "compress", "--resume", "--out", str(tmp_path / "run"), "--json"]
    again = subprocess.run(resume, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, check=False)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["accuracy"] == report["accuracy"]
    assert json.loads(again.stdout)["history"] == report["history"]


def test_a_trained_network_can_be_given(finished: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    volumes(tmp_path / "data.npz")
    done = run(tmp_path / "again", "--weights", str(finished[0] / "dense.safetensors"), "--export", "none", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accuracy"]["dense"] == finished[1]["accuracy"]["dense"]
    assert report["export"] is None


def test_a_state_dict_of_torch_can_be_given(finished: tuple[Path, dict[str, object]], tmp_path: Path) -> None:
    _, tensors = read(finished[0] / "dense.safetensors")
    torch.save({"module." + name: tensor for name, tensor in tensors.items()}, tmp_path / "net.pt")
    again = read_state_dict(tmp_path / "net.pt")
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("name", "content"), [("a.pt", b"no pickle"), ("c.pt", b"junk"), ("a.safetensors", b"no tensors"), ("b.pt", None)]
)
def test_weights_that_hold_no_state_dict_are_named(name: str, content: bytes | None, tmp_path: Path) -> None:
    if content is None:
        torch.save([1, 2], tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)} holds no state dict"):
        read_state_dict(tmp_path / name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sparsity", "1.5"], "sparsity: 1.5; accepted is a share"),
        (["--net", "unet"], "net: 'unet'; accepted are auto, c3d, r3d18, unet3d, PACKAGE.MODULE:FUNCTION"),
        (["--rank", "0"], "rank: 0; accepted are whole numbers"),
        (["--score", "l1"], "score: 'l1'; accepted are product"),
        (["--scope", "net"], "scope: 'net'; accepted are"),
        (["--distill", "2"], "distill: 2.0; accepted is"),
        (["--stages", "9"], "stages: 9; one is cut per retraining epoch"),
        (["--tile", "9"], "tile: 9 outputs per axis; accepted are 1 to 8"),
        (["--rank", "65"], "rank of 'conv1': 65; accepted are whole numbers from 1 to 64"),
        (["--batch-size", "1"], "batch_size: 1; accepted is 2 or more"),
        (["--tile", "2x2"], "'2x2' is neither a number nor DxHxW"),
        (["--data", "/nowhere.npz"], "no data at '/nowhere.npz'"),
        (["--weights", "/nowhere.safetensors"], "no file /nowhere.safetensors"),
        (["--target", "riscv64"], "riscv64"),
        (["--export", "conv9"], "export: 'conv9'; accepted are"),
        (["--resume", "--fresh"], "--resume and --fresh"),
        (["--multiplies", "0"], "multiplies: 0.0; accepted is a share of direct convolution's, above 0 up to 1"),
        (["--multiplies", "0.1", "--tile", "4"], "multiplies: a plan says what is cut; accepted is without tile"),
        (["--multiplies", "0.001"], "multiplies: 0.001; a column in each layer takes 0.0"),
        (["--resume"], "holds no run to resume"),
        (["--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_wrong_flags_are_named_before_anything_is_written(flags: list[str], message: str, tmp_path: Path) -> None:
    done = run(tmp_path / "run", *flags)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_out_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    done = run(tmp_path / "run")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04", b"\x80\x02}q.", b"\x00" * 100])
def test_a_damaged_checkpoint_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged or no checkpoint of a job; --fresh starts over"):
        state.read(tmp_path)


def test_an_emulator_that_fails_does_not_cost_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("run: the emulator crashed")

    monkeypatch.setattr("lrw_kernels.aot.emulate.run_network", broken)
    monkeypatch.setattr("lrw_kernels.aot.emulate.missing_tools", lambda _: [])
    target = find_target("aarch64-linux-gnu")
    built = SimpleNamespace(
        target=target, header="a.h", shared=None, note="", inputs=(Port("input", "input", (1, 8, 8, 8, 1)),)
    )
    monkeypatch.setattr(finish, "export", lambda *_, **__: built)
    config = JobConfig(out=str(tmp_path))
    row = finish._export(config, nn.Conv3d(1, 1, 3), torch.zeros(1, 1, 8, 8, 8), Reporter(Console(), quiet=True))
    assert row is not None
    assert row.error is None
    assert row.check == "not run here: run: the emulator crashed"


def test_a_compiler_that_fails_does_not_cost_the_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("lowering c3d gave exit status 1")

    monkeypatch.setattr(finish, "export", broken)
    config = JobConfig(out=str(tmp_path))
    row = finish._export(config, nn.Conv3d(1, 1, 3), torch.zeros(1, 1, 8, 8, 8), Reporter(Console(), quiet=True))
    assert row is not None
    assert (row.header, row.error) == (None, None)
    assert row.check == "not exported: lowering c3d gave exit status 1"


def test_help_names_every_option() -> None:
    done = subprocess.run([sys.executable, "-m", "lrw.cli", "compress", "--help"], capture_output=True, text=True,
                          env=ENVIRONMENT, check=True)  # fmt: skip
    for option in ("data", "net", "sparsity", "rank", "tile", "epochs", "seed", "out", "json", "resume"):
        assert f"--{option}" in done.stdout


def test_importing_lrw_imports_neither_compilers_nor_matplotlib() -> None:
    heavy = {"llvmlite", "numba", "triton", "matplotlib", "sklearn"}
    code = f"import sys, lrw, lrw.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.strip() == "[]"
