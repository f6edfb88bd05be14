"""`lrw prune`: a file of weights and some samples in, a smaller network out; wrong words named, stopped and gone on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lrw
from lrw import nets
from lrw.cli import main
from lrw.nets import own
from lrw.pruning.resume import Done
from verify.unit.job.small import volumes
from verify.unit.lrw.prunable import branches, far, samples

NET = "verify.unit.lrw.prunable:branches"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights and samples of a network of one's own, in the current folder."""
    monkeypatch.chdir(tmp_path)
    torch.save(branches().state_dict(), "net.pt")
    np.save("x.npy", torch.cat(samples()).numpy())
    return tmp_path


def arguments(*more: str) -> list[str]:
    return ["prune", "net.pt", "--net", NET, "--data", "x.npy", "--batch", "2", "--quiet", *more]


def test_what_is_saved_is_what_the_library_makes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--sparsity", "0.5", "--json", "--out", "small.safetensors")) == 0
    said = json.loads(capsys.readouterr().out)
    expected = lrw.prune(branches(), samples(), sparsity=0.5, progress=False)
    assert [layer["size"]["kept"] for layer in said["layers"]] == [s.size.kept for s in expected.report.layers]
    assert said["error"] == pytest.approx(expected.report.error, rel=1e-3)
    assert said["test"] is None
    small = lrw.load("small.safetensors", branches())
    assert said["bytes"] == (folder / "small.safetensors").stat().st_size
    assert far(small, expected, samples()) < 1e-4
    assert sum(isinstance(m, lrw.CompressedConv3d) for m in small.modules()) == 3
    assert sorted(p.name for p in folder.iterdir()) == ["net.pt", "small.safetensors", "x.npy"]


def test_what_is_to_be_trained_on_keeps_its_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--multiplies", "0.1", "--trainable", "--spare", "flat")) == 0
    out = capsys.readouterr().out
    assert "flat: left as it is, spared" in out
    assert "pruned.safetensors: " in out
    net = lrw.load("pruned.safetensors", branches())
    assert isinstance(lrw.add_low_rank(net, 2).stem, lrw.LowRankWinogradConv3d)


def test_networks_of_the_package_on_labelled_data_say_what_they_score(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    net = nets.build("c3d", in_channels=1, classes=2, input_size=(8, 8, 8), width=4)
    torch.save(net.state_dict(), "c3d.pt")
    volumes(folder / "data.npz")
    flags = ["--net", "c3d", "--width", "4", "--data", "data.npz", "--samples", "20", "--sparsity", "0.25", "--json"]
    assert main(["prune", "c3d.pt", *flags]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["test"]) == {"before", "after"}
    assert all(0 <= metrics["accuracy"] <= 1 for metrics in said["test"].values())


def test_grey_levels_are_refused_where_nothing_says_how_to_normalise_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("x.npy", np.zeros((2, 4, 7, 9, 8), dtype=np.uint8))
    assert main(arguments("--sparsity", "0.5")) == 2
    assert "--data: x.npy holds uint8 [2, 4, 7, 9, 8]; accepted are numbers" in capsys.readouterr().err


def test_files_for_batches_of_one_size(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another size is named before anything is pruned."""
    torch.export.save(torch.export.export(branches().eval(), (samples()[0][:1],)), "net.pt2")
    flags = ["prune", "net.pt2", "--data", "x.npy", "--quiet", "--sparsity", "0.5", "--batch"]
    assert main([*flags, "2"]) == 2
    assert "--batch: the network does not take [2, 4," in capsys.readouterr().err
    assert main([*flags, "1"]) == 0


def test_an_exported_file_is_network_and_weights(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = torch.export.export(branches().eval(), (samples()[0],))
    torch.export.save(program, "net.pt2")
    flags = ["--data", "x.npy", "--batch", "2", "--quiet", "--sparsity", "0.5"]
    assert main(["prune", "net.pt2", *flags, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = lrw.prune(branches(), samples(), sparsity=0.5, progress=False)
    assert [layer["size"]["kept"] for layer in said["layers"]] == [s.size.kept for s in expected.report.layers]
    small = lrw.load("pruned.safetensors", own("net.pt2"))
    assert far(small, expected, samples()) < 1e-4
    assert main(["prune", "net.pt2", *flags, "--net", NET]) == 2
    assert "--net: net.pt2 says it; accepted is nothing" in capsys.readouterr().err


def test_stopped_it_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written = Done.write

    def write(self: Done, place: int, layer: Any) -> None:
        written(self, place, layer)
        if place == 0:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Done, "write", write)
        assert main(arguments("--sparsity", "0.5")) == 130
    assert "the same command goes on from them" in capsys.readouterr().err
    assert [p.name for p in (folder / "pruned.safetensors.layers").iterdir()] == ["layer-0.safetensors"]
    assert not (folder / "pruned.safetensors").exists()
    assert main(arguments("--sparsity", "0.6")) == 2
    said = "--out: pruned.safetensors.layers was left by a run of other work, or is damaged; remove it"
    assert said in capsys.readouterr().err
    assert main(arguments("--sparsity", "0.5", "--json")) == 0
    assert [layer["seconds"] > 0 for layer in json.loads(capsys.readouterr().out)["layers"]] == [False, True, True]
    assert not (folder / "pruned.safetensors.layers").exists()


REFUSED = {
    "no budget": ([], "one of the arguments --sparsity --multiplies --speedup is required"),
    "two budgets": (["--sparsity", "0.5", "--multiplies", "0.5"], "not allowed with argument"),
    "sparsity": (["--sparsity", "1"], "--sparsity: 1.0; accepted is a share"),
    "multiplies": (["--multiplies", "0"], "--multiplies: 0.0; accepted is a share"),
    "tile": (["--sparsity", "0.5", "--tile", "9"], "--tile: 9"),
    "spare": (["--sparsity", "0.5", "--spare", "stem,head"], "--spare: names 'head', which is no layer to prune"),
    "samples": (["--sparsity", "0.5", "--samples", "0"], "--samples: 0; accepted are whole numbers from 1"),
    "out": (["--sparsity", "0.5", "--out", "nowhere/x.safetensors"], "--out: no folder nowhere"),
    "data": (["--sparsity", "0.5", "--data", "gone.npy"], "No such file or directory: 'gone.npy'"),
    "weights": (["--sparsity", "0.5", "--net", "gone:net"], "--net: gone:net: ModuleNotFoundError"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_words_are_named(name: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, words = REFUSED[name]
    try:
        code = main(arguments(*flags))
    except SystemExit as stop:  # argparse's
        code = int(str(stop.code))
    assert code == 2
    assert words in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["net.pt", "x.npy"]


@pytest.mark.parametrize("damage", ["cut off", "objects", "texts", "empty", "one axis", "NaN"])
def test_arrays_that_are_none_are_named(damage: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arrays: dict[str, Any] = {
        "objects": np.array([{}, {}], dtype=object),
        "texts": np.array([["a", "b"]]),
        "empty": np.zeros((0, 4, 7, 9, 8)),
        "one axis": np.zeros(5),
        "NaN": np.full((2, 4, 7, 9, 8), np.nan),
    }
    if damage in arrays:
        np.save("x.npy", arrays[damage], allow_pickle=True)
    else:
        (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:-100])
    assert main(arguments("--sparsity", "0.5")) == 2
    said = capsys.readouterr().err
    others = {"NaN": "batches[0]: holds NaN or infinity", "one axis": "--data: x.npy holds float64 [5]; accepted are"}
    assert others.get(damage, "x.npy is not an .npy array: ") in said
