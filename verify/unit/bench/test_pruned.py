"""Networks with random columns removed, and new processes: what their rows are made of, and their gates."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import page, pruned, startup
from bench.gate import Red
from bench.layers import Network
from lrw.layers import named_layers
from lrw.nn import CompressedConv3d

SHAPE = (1, 16, 8, 16, 16)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 16, 3, padding=1))


def test_a_quarter_of_each_layer_s_columns_is_left() -> None:
    net, x = small().eval(), torch.randn(SHAPE)
    layers = named_layers(pruned.without_columns(net, x), CompressedConv3d)
    assert len(layers) == 2
    for layer in layers.values():
        assert layer.geometry.columns == round(layer.geometry.tile.positions / 4)


def test_a_row_has_the_times_of_the_network_in_torch_whole_and_pruned() -> None:
    (row,) = pruned.measure(Network("small", "lrw", small, SHAPE), 0.01)
    assert (row.network, row.input, row.layers) == ("small", "1x16x8x16x16", 2)
    assert row.speedup == row.dense_ms / row.pruned_ms
    assert row.torch_ms > 0
    assert 0 < row.error < pruned.RTOL
    assert "| small |" in pruned.table([row])[-1]


def test_a_pruned_network_that_computes_something_else_is_red(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruned, "in_float64", lambda net: small().double())
    monkeypatch.setattr(pruned, "interleaved", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(Red, match=r"^gate: an element of small, pruned is off by "):
        pruned.measure(Network("small", "lrw", small, SHAPE), 0.01)


def test_waits_are_told_by_whether_kernels_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(cache: str) -> dict[str, float]:
        first = not any(Path(cache).iterdir())
        Path(cache, "kernel").touch()
        return {"torch_s": 2.0, "lrw_s": 0.5, "call_s": 60.0 if first else 5.0, "error": 1e-6 if first else 2e-6}

    monkeypatch.setattr(startup, "started", started)
    found = startup.measure()
    assert [row.seconds for row in found] == [0.5, 60.0, 5.0]
    assert [row.processes for row in found] == [1 + startup.AGAIN, 1, startup.AGAIN]
    assert [row.error for row in found] == [2e-6, 1e-6, 2e-6]
    assert {row.torch_s for row in found} == {2.0}


@pytest.mark.parametrize(
    ("said", "message"), [("Traceback\ngate: off\n", "a new process: gate: off"), ("", "a new process: exit code 1")]
)
def test_a_process_that_fails_is_red(said: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(startup.subprocess, "run", run)
    with pytest.raises(Red, match=f"^{message}$"):
        startup.started("nowhere")


@pytest.mark.slow
def test_a_new_process_says_what_it_waited_for(tmp_path: Path) -> None:
    found = startup.started(str(tmp_path))
    assert found["error"] < 1e-4
    assert min(found["torch_s"], found["lrw_s"], found["call_s"]) > 0
    assert any(tmp_path.iterdir()), "kernels are kept there"


def test_tables_for_a_terminal_are_aligned_and_leave_out_empty_columns() -> None:
    lines = page.tight(page.table(("net", "absent", "ms"), [("a", "", "1.5"), ("longer", "", "10.25")]))
    assert page.aligned(lines) == ["net        ms", "a         1.5", "longer  10.25"]
