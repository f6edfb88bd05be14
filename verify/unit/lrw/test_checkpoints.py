"""Checkpoints: saved networks load without pickle, compute the same, and are checked against the skeleton."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from lrw.checkpoint import read_state_dict
from verify.unit.lrw.small_nets import X, pruned_net, small_net


@pytest.mark.parametrize("form", ["winograd", "lowrank", "compressed"])
def test_saved_networks_load_in_a_fresh_process_without_pickle(form: str, tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2) if form == "winograd" else pruned_net()[0]
    net = lrw.compress(net) if form == "compressed" else net
    path = lrw.save(net, tmp_path / "net.safetensors")
    torch.save({"x": X, "y": net(X).detach()}, tmp_path / "pair.pt")
    code = (
        "import sys, torch, lrw; from verify.unit.lrw.small_nets import small_net\n"
        "lrw.load; sys.modules['pickle'] = None\n"
        f"net = lrw.load({str(path)!r}, small_net(seed=7)).eval()\n"
        f"import importlib; del sys.modules['pickle']; pair = torch.load({str(tmp_path / 'pair.pt')!r})\n"
        "assert torch.equal(net(pair['x']), pair['y'])\n"
        "assert 'numba' not in sys.modules and 'triton' not in sys.modules\n"
        "print('equal')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False)
    assert done.stdout.strip() == "equal", done.stderr


def _environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'kernels'}"}


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["DataParallel", "compile"])
def test_wrappers_leave_no_trace(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2)
    again = lrw.load(lrw.save(wrap(net), tmp_path / "a.safetensors"), small_net(3)).eval()
    assert torch.equal(again(X), net(X))


def test_compiled_parts_leave_no_trace(tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2)
    expected = net(X)
    net[0] = torch.compile(net[0])
    again = lrw.load(lrw.save(net, tmp_path / "a.safetensors"), small_net(3)).eval()
    assert torch.equal(again(X), expected)


class Holder(nn.Module):
    """A network that calls a layer `module` itself, beside a tensor of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Conv3d(1, 2, 3)
        self.weight = nn.Parameter(torch.ones(3))


def test_a_layer_called_module_keeps_its_name(tmp_path: Path) -> None:
    net = lrw.to_winograd(Holder(), 2)
    again = lrw.load(lrw.save(net, tmp_path / "a.safetensors"), Holder())
    assert torch.equal(again.module.weight, net.module.weight)
    assert torch.equal(again.weight, net.weight)


def replaced(index: int, module: nn.Module) -> nn.Module:
    net = small_net()
    net[index] = module
    return net


SKELETONS: dict[str, Callable[[], nn.Module]] = {
    "layer '0' has tile F(4x4x4": lambda: lrw.to_winograd(small_net(), 4),
    "layer '0' has channels (7, 9)": lambda: replaced(0, nn.Conv3d(7, 9, 3)),
    "layer '0' is a Linear": lambda: replaced(0, nn.Linear(1, 4)),
    "skeleton: does not fit": lambda: replaced(9, nn.Linear(8, 5)),
    "padding (0, 0, 0)": lambda: lrw.to_winograd(replaced(0, nn.Conv3d(1, 4, 3)), 2),
}


@pytest.mark.parametrize("message", SKELETONS)
def test_a_skeleton_that_does_not_fit_is_named(message: str, tmp_path: Path) -> None:
    path = lrw.save(lrw.to_winograd(small_net(), 2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError) as caught:
        lrw.load(path, SKELETONS[message]())
    assert message in str(caught.value)


def test_a_failed_save_leaves_the_file_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = lrw.to_winograd(small_net(), 2)
    path = lrw.save(net, tmp_path / "a.safetensors")
    before = path.read_bytes()

    def interrupted(tensors: object, target: Path, metadata: object) -> None:
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("lrw.checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        lrw.save(net, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unfinite_weights_are_not_saved(tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2)
    with torch.no_grad():
        net[0].weight[0] = float("inf")
    with pytest.raises(ValueError, match=r"0\.weight: weights hold NaN or infinity"):
        lrw.save(net, tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_compressed_layers_follow_the_positions_they_load() -> None:
    first, second = (lrw.to_winograd(small_net(), 2) for _ in range(2))
    first[0].keep(range(10))
    second[0].keep(range(30, 40))
    one, other = lrw.compress(first), lrw.compress(second)
    one.load_state_dict(other.state_dict())
    assert one[0].geometry.kept == tuple(range(30, 40))
    assert torch.equal(one(X), other(X))


def test_masks_and_positions_that_cannot_be_are_refused_before_loading() -> None:
    net = lrw.to_winograd(small_net(), 2)
    with pytest.raises(ValueError, match=r"0\.mask: keeps no column"):
        net.load_state_dict({**net.state_dict(), "0.mask": torch.zeros(64, 1, 1, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"0\.mask: shape \[64\]"):
        net.load_state_dict({**net.state_dict(), "0.mask": torch.ones(64, dtype=torch.bool)})
    assert bool(net[0].mask.all())
    small = lrw.compress(net)
    with pytest.raises(ValueError, match=r"position 64 outside 0\.\.63"):
        small.load_state_dict({**small.state_dict(), "0.kept": torch.arange(1, 65)})


def test_state_dict_round_trip_restores_the_kept_columns() -> None:
    net, _ = pruned_net()
    again = lrw.add_low_rank(lrw.to_winograd(small_net(9), 2), rank=4)
    again.load_state_dict(net.state_dict())
    assert again[0].geometry.kept == net[0].geometry.kept
    assert torch.equal(again(X), net(X))


def whole(path: Path) -> None:
    torch.save(small_net(), path)


def beside_objects(path: Path) -> None:
    torch.save({"epoch": 3, "optimizer": torch.optim.SGD(small_net().parameters())}, path)


def cut_off(path: Path) -> None:
    torch.save(small_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def old_and_cut_off(path: Path) -> None:
    torch.save(small_net().state_dict(), path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-200])


OBJECTS = (
    "but a whole model (or other objects); accepted are tensors by name, such as torch.save(net.state_dict(), ...)"
)
DAMAGED = "it is empty, cut off, damaged or no file of torch.save"
FOREIGN: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "a whole model": ("a.pt", whole, OBJECTS),
    "objects beside it": ("a.pth", beside_objects, OBJECTS),
    "cut off": ("a.pt", cut_off, DAMAGED),
    "cut off, old format": ("a.pt", old_and_cut_off, DAMAGED),
    "garbage": ("a.pt", lambda path: path.write_bytes(bytes(range(256)) * 9), DAMAGED),
    "a text": ("a.pt", lambda path: path.write_text("mine"), DAMAGED),
    "nothing": ("a.pt", lambda path: path.write_text(""), DAMAGED),
    "nothing, safetensors": ("a.safetensors", lambda path: path.write_text(""), "damaged or no file of safetensors"),
    "other things by name": ("a.pt", lambda path: torch.save({"epoch": 3, "best": 0.5}, path), "but 'epoch', 'best';"),
    "no names": ("a.pt", lambda path: torch.save([1, 2], path), "but a list;"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_without_a_state_dict_say_what_they_hold_in_a_line(name: str, tmp_path: Path) -> None:
    file, write, words = FOREIGN[name]
    write(tmp_path / file)
    with pytest.raises(ValueError) as caught:
        read_state_dict(tmp_path / file)
    text = str(caught.value)
    assert text.startswith(f"path: {tmp_path / file} holds no state dict")
    assert words in text
    assert "\n" not in text
    assert "\x1b" not in text


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict"])
def test_a_trainers_checkpoint_gives_its_state_dict(key: str, tmp_path: Path) -> None:
    net = nn.DataParallel(small_net())
    optimizer = torch.optim.SGD(net.parameters(), momentum=0.9)
    content = {"epoch": 3, key: net.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content, tmp_path / "a.pt")
    again = small_net(3)
    again.load_state_dict(read_state_dict(tmp_path / "a.pt"))
    assert torch.equal(again(X), small_net()(X))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        lrw.load(tmp_path / "none", small_net())
