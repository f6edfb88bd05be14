"""`lrw compress` of networks and data of one's own: functions and files, arrays, labels of voxels."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lrw
from lrw.cli import main
from lrw.nets import own
from verify.unit.data.small import write_decathlon
from verify.unit.job.small import FLAGS

pytestmark = pytest.mark.slow

MODULE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1),
                         nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))

def voxels():
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 3, padding=1))

class Two(nn.Module):
    def forward(self, x):
        return x, x

class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = net()

    def forward(self, x):
        return [self.one(x)] * 2 if self.training else self.one(x)

class Odd(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = net()

    def forward(self, x):
        return self.one(input=x).cumsum(1).sin()

def fixed():
    return nn.Sequential(nn.Flatten(), nn.Linear(3, 3))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a module of networks, and arrays with a label a volume and a label a voxel."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lrw.job.finish.turns", lambda calls, seconds: {name: [1e-3, 2e-3] for name in calls})
    monkeypatch.setattr("lrw.job.finish.interleaved", lambda calls, seconds: dict.fromkeys(calls, 1e-3))
    (tmp_path / "own_of_job.py").write_text(MODULE)
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (40, 2, 6, 6, 6)).astype(np.float32)
    labels = np.arange(40) % 3
    images[:, 0] += labels[:, None, None, None] * 2
    np.savez("named.npz", images=images, labels=labels)
    np.savez("voxels.npz", images=images, labels=(images[:, 1] > 0.5).astype(np.uint8))
    return tmp_path


def compress(*flags: str) -> int:
    """The exit code of a small job; networks of the package are two channels wide."""
    small = "--epochs 2 --batch-size 8 --rank 2 --export none --quiet --out run".split()
    own_net = any(":" in flag or flag.endswith(".pt2") for flag in flags)
    return main(["compress", *small, *([] if own_net else ["--width", "2"]), *flags])


def report(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "run" / "report.json").read_text())
    return found


def test_a_function_of_ones_own_is_trained_and_loads_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress("--data", "named.npz", "--net", "own_of_job:net", "--epochs", "4") == 0
    said = report(folder)
    assert said["config"]["net"] == "own_of_job:net"
    assert [layer["name"] for layer in said["layers"]] == ["0", "3"]
    small = lrw.load("run/compressed.safetensors", own("own_of_job:net"))
    assert small(torch.zeros(1, 2, 6, 6, 6)).shape == (1, 3)
    assert main(["compress", "--resume", "--out", "run", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["export", "run", "--out", "library"]) == 2
    assert "--net: run is of own_of_job:net; accepted is that" in capsys.readouterr().err
    assert main(["export", "run", "--net", "own_of_job:net", "--out", "library", "--target", "x86_64-linux-gnu"]) == 0
    assert sorted(path.name for path in (folder / "library").glob("lrw_net*.h")) == ["lrw_net.h"]


def test_an_exported_file_is_trained_from_where_it_is(folder: Path) -> None:
    torch.manual_seed(0)
    net, x = own("own_of_job:net").eval(), torch.zeros(2, 2, 6, 6, 6)
    batch = torch.export.Dim("batch")
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=({0: batch},)), "net.pt2")
    assert compress("--data", "named.npz", "--net", "net.pt2", "--epochs", "4") == 0
    said = report(folder)
    assert [entry["stage"] for entry in said["history"]] == ["finetune"] + ["retrain"] * 2
    dense = lrw.load("run/dense.safetensors", own("net.pt2"))
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(dense.state_dict()[name], tensor, rtol=0, atol=0)


def test_what_cannot_be_exported_leaves_the_rest(folder: Path) -> None:
    """Nor does it bind a run that goes on."""
    flags = "--epochs 2 --batch-size 8 --rank 2 --quiet --out run --data named.npz --net own_of_job:Odd".split()
    assert main(["compress", *flags]) == 0
    exported = report(folder)["export"]
    assert "not exported: net: cannot be exported, because of aten.cumsum" in exported["check"]
    assert main(["compress", "--resume", "--out", "run", "--quiet", "--export", "none"]) == 0
    assert report(folder)["export"] is None


def test_trained_says_that_nothing_is_trained_before(folder: Path) -> None:
    assert compress("--data", "named.npz", "--net", "own_of_job:net", "--trained", "--epochs", "4") == 0
    assert "train" not in {entry["stage"] for entry in report(folder)["history"]}


@pytest.mark.parametrize("net", ["auto", "unet3d", "own_of_job:voxels"])
def test_labels_of_voxels_are_learnt_voxel_by_voxel(net: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert compress("--data", "voxels.npz", "--net", net, "--epochs", "4", "--learning-rate", "0.02") == 0
    said = report(folder)
    assert said["config"]["net"] == ("unet3d" if net == "auto" else net)
    assert set(said["accuracy"]) == {"dense", "finetuned", "pruned", "retrained", "compressed"}
    losses = [row["loss"] for row in said["history"] if row["stage"] == "train"]
    assert losses[-1] < losses[0]
    assert all(0 <= row["dice"] <= 1 and row["auc"] is None for row in said["accuracy"].values())
    assert said["accuracy"]["compressed"] == pytest.approx(said["accuracy"]["retrained"], abs=1e-4)
    assert "Dice" in capsys.readouterr().out
    if net == "auto":
        assert main(["export", "run", "--out", "library", "--target", "x86_64-linux-gnu"]) == 0


def test_label_maps_are_segmented_unless_a_classifier_is_asked_for(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_decathlon(folder / "task")
    flags = [flag for flag in FLAGS if flag != "--quiet"]
    small = [*flags, "--batch-size", "8", "--size", "8x8x8", "--data", "task"]
    assert main(["compress", *small, "--out", "run"]) == 0
    assert "samples 8x8x8 with a label a voxel" in capsys.readouterr().err
    assert report(folder)["accuracy"]["dense"]["dice"] > 0
    assert main(["compress", *small, "--out", "named", "--net", "c3d"]) == 0
    assert "with a label each, that of the centre's voxel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--data named.npz --net unet3d", "net: named.npz has a label for each volume; accepted are c3d and r3d18"),
        ("--data voxels.npz --net c3d", "net: voxels.npz has a label for each voxel; accepted are unet3d"),
        ("--data named.npz --net own_of_job:voxels", "net: own_of_job:voxels gives [2, 2, 6, 6, 6] for samples"),
        ("--data voxels.npz --net own_of_job:net", "accepted is [2, 2 or more, 6, 6, 6]"),
        ("--data named.npz --net own_of_job:Two", "net: own_of_job:Two gives a tuple for samples [2, 2, 6, 6, 6]"),
        ("--data named.npz --net own_of_job:Deep", "net: own_of_job:Deep gives a list for samples [2, 2, 6, 6, 6]"),
        (
            "--data named.npz --net own_of_job:fixed",
            "net: own_of_job:fixed does not take samples [2, 2, 6, 6, 6] (mat1",
        ),
        ("--data named.npz --net own_of_job:absent", "net: own_of_job:absent: AttributeError"),
        ("--data named.npz --net own_of_job:net --width 9", "width: own_of_job:net is called without arguments"),
        ("--data named.npz --net c3d --trained", "trained: c3d starts untrained"),
        ("--data named.npz --net c3d --size 8x8x8", "size must be None or the arrays' own (6, 6, 6)"),
    ],
)
def test_what_does_not_fit_is_named_before_anything_is_written(
    flags: str, words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compress(*flags.split()) == 2
    assert words in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_batches_of_one_size_are_not_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    torch.export.save(torch.export.export(net.eval(), (torch.zeros(2, 2, 6, 6, 6),)), "net.pt2")
    assert compress("--data", "named.npz", "--net", "net.pt2") == 2
    assert "net: net.pt2 does not take samples [1, 2, 6, 6, 6]" in capsys.readouterr().err
