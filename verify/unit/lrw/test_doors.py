"""What is no network, or one whose weights are not there yet, is refused in the same words at every door."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lrw

X = torch.randn(1, 2, 8, 8, 8)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1))


DOORS: dict[str, Callable[[Any, Path], object]] = {
    "accelerate": lambda net, _: lrw.accelerate(net, X),
    "add_low_rank": lambda net, _: lrw.add_low_rank(net),
    "check": lambda net, _: lrw.check(net, X),
    "ColumnPruner": lambda net, _: lrw.ColumnPruner(net),
    "compress": lambda net, _: lrw.compress(net),
    "export": lambda net, folder: lrw.export(net, X, folder / "out"),
    "load": lambda net, folder: lrw.load(folder / "net.safetensors", net),
    "prune": lambda net, _: lrw.prune(net, [X], sparsity=0.5, progress=False),
    "save": lambda net, folder: lrw.save(net, folder / "out.safetensors"),
    "to_winograd": lambda net, _: lrw.to_winograd(net),
}
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a state dict": (
        lambda: plain().state_dict(),
        r": tensors by name; accepted is the network \(nn.Module\)",
    ),
    "a tensor": (lambda: X, r": a Tensor; accepted is a torch network \(nn.Module\)"),
    "nothing": (lambda: None, r": a NoneType; accepted is a torch network"),
    "a lazy network": (lambda: nn.Sequential(nn.LazyConv3d(4, 3)), r"0.weight: has no size yet \(a lazy layer\)"),
    "a network on meta": (lambda: plain().to("meta"), r"0.weight: has no numbers \(on the meta device\)"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.parametrize("door", DOORS)
def test_no_network_is_refused_at_every_door(door: str, what: str, tmp_path: Path) -> None:
    make, words = REFUSED[what]
    lrw.save(plain(), tmp_path / "net.safetensors")
    with pytest.raises(ValueError, match=words):
        DOORS[door](make(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]
