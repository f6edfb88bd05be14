"""Checkpoints: saved networks load without pickle, compute the same, and are checked against the skeleton."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from verify.unit.small_nets import X, pruned_net, small_net


@pytest.mark.parametrize("form", ["winograd", "lowrank", "compressed"])
def test_saved_networks_load_in_a_fresh_process_without_pickle(form: str, tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2) if form == "winograd" else pruned_net()[0]
    net = lrw.compress(net) if form == "compressed" else net
    path = lrw.save(net, tmp_path / "net.safetensors")
    torch.save({"x": X, "y": net(X).detach()}, tmp_path / "pair.pt")
    code = (
        "import sys, torch, lrw; sys.modules['pickle'] = None\n"
        "from verify.unit.small_nets import small_net\n"
        f"net = lrw.load({str(path)!r}, small_net(seed=7)).eval()\n"
        f"import importlib; del sys.modules['pickle']; pair = torch.load({str(tmp_path / 'pair.pt')!r})\n"
        "assert torch.equal(net(pair['x']), pair['y'])\n"
        "assert 'numba' not in sys.modules and 'triton' not in sys.modules\n"
        "print('equal')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), check=False)
    assert done.stdout.strip() == "equal", done.stderr


def _environment() -> dict[str, str]:
    root = Path(__file__).resolve().parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}:{root / 'kernels'}"}


def test_prefixes_of_wrappers_are_stripped(tmp_path: Path) -> None:
    net = lrw.to_winograd(small_net(), 2)
    wrapped = nn.ModuleDict({"module": nn.ModuleDict({"_orig_mod": net})})
    again = lrw.load(lrw.save(wrapped, tmp_path / "a.safetensors"), small_net(3)).eval()
    assert torch.equal(again(X), net(X))


def test_identity_of_a_layer_is_checked_on_load(tmp_path: Path) -> None:
    path = lrw.save(lrw.to_winograd(small_net(), 2), tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="layer '0' has tile"):
        lrw.load(path, lrw.to_winograd(small_net(), 4))


def test_state_dict_round_trip_restores_the_kept_columns() -> None:
    net, _ = pruned_net()
    again = lrw.add_low_rank(lrw.to_winograd(small_net(9), 2), rank=4)
    again.load_state_dict(net.state_dict())
    assert again[0].geometry.kept == net[0].geometry.kept
    assert torch.equal(again(X), net(X))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no file"):
        lrw.load(tmp_path / "none", small_net())
