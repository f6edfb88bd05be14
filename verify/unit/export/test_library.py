"""`lrw.export` before it compiles: the tile for half precision and the folder."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrw.export import export
from lrw_kernels.network.graph import Network

pytestmark = pytest.mark.slow


class Asked(Exception):
    """Raised in place of compiling."""


def tiles(monkeypatch: pytest.MonkeyPatch, out: Path, **how: Any) -> list[tuple[int, ...]]:
    """Outputs per axis of the two convolutions of a network, as they would be compiled."""
    networks: list[Network] = []

    def stop(network: Network, *_: object, **__: object) -> None:
        networks.append(network)
        raise Asked

    monkeypatch.setattr("lrw_kernels.aot.build_network", stop)
    net = nn.Sequential(nn.Conv3d(16, 16, 3), nn.Conv3d(16, 16, (1, 3, 3)))
    with pytest.raises(Asked):
        export(net, torch.zeros(1, 16, 14, 14, 14), out, **how)
    return [node.operator.tile.outputs for node in networks[0].nodes]


@pytest.mark.parametrize("target", ["aarch64-linux-gnu", "aarch64-linux-android24"])
def test_half_precision_gets_tiles_of_two_outputs_unless_others_are_asked_for(
    target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert tiles(monkeypatch, tmp_path, target=target) == [(4, 4, 4), (1, 4, 4)]
    assert tiles(monkeypatch, tmp_path, target=f"{target}-fp16") == [(2, 2, 2), (1, 2, 2)]
    assert tiles(monkeypatch, tmp_path, target=f"{target}-fp16", tile=4) == [(4, 4, 4), (1, 4, 4)]


def test_folders_that_were_there_stay_and_those_made_in_vain_go(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    for out in ("mine", "mine/a/b", "new"):
        tiles(monkeypatch, tmp_path / out)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_a_folder_that_cannot_be_made_is_named_before_the_network_is_traced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"^out: .*file/x cannot be written to \(Not a directory\)"):
        export(nn.LogSigmoid(), torch.zeros(1, 1, 2, 2, 2), tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_library_can_be_held_against_torch_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, x = nn.Conv3d(2, 4, 3, padding=1), torch.randn(1, 2, 4, 4, 4)
    built = export(net, x, tmp_path, target="x86_64-linux-gnu", check=True)
    sizes = "input [1, 4, 4, 4, 2] -> output [1, 4, 4, 4, 4]"
    assert repr(built) == f"<net for x86_64-linux-gnu in {tmp_path}: {sizes}>"
    library = sys.modules["lrw.export.library"]
    monkeypatch.setattr(library, "compare", lambda *_: ("ran natively", float("nan")))
    with pytest.raises(RuntimeError, match=r"check: the library ran natively and is off torch by nan .* it stays in"):
        export(net, x, tmp_path, target="x86_64-linux-gnu", check=True)
    monkeypatch.setattr("lrw_kernels.aot.missing_tools", lambda _: ["qemu-aarch64"])
    with pytest.raises(ValueError, match="check: running a library for aarch64-linux-gnu here needs qemu-aarch64"):
        export(net, x, tmp_path / "other", check=True)
    assert not (tmp_path / "other").exists()
