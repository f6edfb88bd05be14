"""lrw.prune stopped, killed and gone on; files that are damaged or of other work."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lrw.pruning import Granularity
from verify.unit.lrw.prunable import branches, quietly, samples


class Killed(Exception):
    """As if the process ended there."""


def test_goes_on_after_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net, batches = branches(), samples()
    expected = quietly(net, batches)
    from lrw.pruning.resume import Done

    written = Done.write

    def write(self: Done, place: int, layer: Any) -> None:
        written(self, place, layer)
        if place == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Done, "write", write)
        with pytest.raises(Killed):
            quietly(net, batches, checkpoint=tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["layer-0.safetensors", "layer-1.safetensors"]
    pruned = quietly(net, batches, checkpoint=tmp_path / "run")
    for name, tensor in expected.state_dict().items():
        assert torch.equal(pruned.state_dict()[name], tensor), name
    assert [layer.errors for layer in pruned.report.layers] == [layer.errors for layer in expected.report.layers]
    for other in ({"sparsity": 0.6}, {"seed": 3}, {"tile": 4}, {"granularity": Granularity(None, 4)}):
        with pytest.raises(ValueError, match="is of another network, other samples or settings"):
            quietly(net, batches, checkpoint=tmp_path / "run", **other)
    with pytest.raises(ValueError, match="is of another network"):
        quietly(net, samples(seed=5), checkpoint=tmp_path / "run")


@pytest.mark.parametrize("damage", ["cut off", "empty", "foreign", "a number changed"])
def test_damaged_checkpoints_are_refused(tmp_path: Path, damage: str) -> None:
    net, batches = branches(), samples()
    quietly(net, batches, checkpoint=tmp_path)
    path = tmp_path / "layer-1.safetensors"
    content = path.read_bytes()
    changed = bytearray(content)
    changed[-5] ^= 0x55
    path.write_bytes({"cut off": content[:-10], "empty": b"", "foreign": b"hello" * 40}.get(damage, bytes(changed)))
    with pytest.raises(ValueError, match=r"layer-1.safetensors is no file of lrw.prune, or damaged"):
        quietly(net, batches, checkpoint=tmp_path)


KILLED = """
import sys, torch, lrw
from verify.unit.lrw.prunable import branches, samples
lrw.prune(branches(), samples(), sparsity=0.5, checkpoint=sys.argv[1], progress=False)
"""


def test_killed_processes_leave_whole_layers(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], cwd=root)
    while process.poll() is None and not list(tmp_path.glob("layer-*.safetensors")):
        pass
    process.kill()
    process.wait()
    pruned = quietly(branches(), samples(), checkpoint=tmp_path)
    expected = quietly(branches(), samples())
    torch.testing.assert_close(pruned.flat.weights(), expected.flat.weights(), rtol=1e-3, atol=1e-4)
