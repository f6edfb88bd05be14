"""lrw.prune to a budget: plans keep to multiplies and to milliseconds, and do better than one share everywhere."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import lrw
from lrw.prune import check_multiplies
from verify.unit.lrw.prunable import branches, quietly, samples, wide


def products(net: nn.Module) -> float:
    """Multiplies left in the products of a pruned network's layers, as a share of direct convolution's."""
    sizes = [layer.size for layer in net.report.layers]
    sample = {"stem": 7 * 9 * 8, "twice": 2 * 7 * 9 * 8, "flat": 3 * 4 * 3}
    direct = {"stem": 4 * 8 * 27, "twice": 8 * 8 * 27, "flat": 6 * 6 * 9}
    tiles = {
        layer.size.name: net.get_submodule(layer.size.name).geometry.tile.grid(grid)
        for layer, grid in zip(net.report.layers, ((7, 9, 8), (7, 9, 8), (3, 4, 3)), strict=True)
    }
    pairs = {"stem": 32, "twice": 128, "flat": 36}
    left = sum(s.kept * tiles[s.name][0] * tiles[s.name][1] * tiles[s.name][2] * pairs[s.name] for s in sizes)
    return left / sum(sample[name] * direct[name] for name in sample)


@pytest.mark.parametrize("share", [0.1, 0.05])
def test_a_plan_leaves_as_many_multiplies_as_it_may(share: float) -> None:
    net, batches = branches(), samples()
    planned = quietly(net, batches, sparsity=None, multiplies=share)
    assert 0.8 * share < products(planned) <= share
    assert len({layer.size.kept / layer.size.columns for layer in planned.report.layers}) > 1


def test_a_plan_does_better_than_the_same_share_everywhere() -> None:
    net, batches = branches(), samples()
    even = quietly(net, batches, sparsity=0.75)
    planned = quietly(net, batches, sparsity=None, multiplies=products(even))
    assert products(planned) <= products(even)
    assert planned.report.error < even.report.error


def test_plans_take_the_tile_they_are_given_and_winograd_layers_theirs() -> None:
    net, batches = branches(), samples()
    fixed = quietly(net, batches, sparsity=None, multiplies=0.2, tile=3)
    assert {layer.size.tile for layer in fixed.report.layers} == {"F(3x3x3, 3x3x3)", "F(1x3x3, 1x3x3)"}
    again = quietly(lrw.to_winograd(net, 4), batches, sparsity=None, multiplies=0.2)
    assert {layer.size.tile for layer in again.report.layers} == {"F(4x4x4, 3x3x3)", "F(1x4x4, 1x3x3)"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": None}, "sparsity, multiplies, speedup: 0 are given; accepted is one of them"),
        ({"multiplies": 0.5}, "sparsity, multiplies, speedup: 2 are given"),
        ({"sparsity": None, "multiplies": 0}, "multiplies: 0; accepted is a share of direct convolution's"),
        ({"sparsity": None, "multiplies": 1e-6}, r"multiplies: 1e-06; a column in each layer takes 0.0\d+ already"),
        ({"tile": "two"}, "tile: 'two'; accepted are outputs per axis and 'auto'"),
    ],
)
def test_budgets_that_are_not_accepted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quietly(branches(), samples(), **options)


def test_a_speedup_is_planned_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of times that are said: 100 ms, of which two layers take 40 each; a column of F(2,3) takes half a millisecond."""
    monkeypatch.setattr(sys.modules["lrw.prune"], "_milliseconds", lambda *_: 100.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Measured.milliseconds", lambda *_: 40.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Columns.__call__", lambda _, of, tile, kept: kept / 2)
    batches = samples(1, 2, shape=(2, 8, 8, 8))
    net = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2)
    kept = [layer.size.kept for layer in net.report.layers]
    assert 38 <= sum(kept) <= 40  # 20 ms are left for the two
    assert net.report.ms == (100.0, 100.0)
    assert [layer.ms for layer in net.report.layers] == [(40.0, count / 2) for count in kept]
    assert str(net.report).splitlines()[0].endswith("s    ms before  after")
    assert "ms before" not in str(quietly(wide(), batches, sparsity=0.5).report)
    assert "one sample takes 100.00 ms, 100.00 before: 1.00 times as fast" in str(net.report)
    with pytest.raises(ValueError, match=r"speedup: 6; accepted is up to 4.8 here, as 20 of 100 ms are not these"):
        quietly(wide(), batches, sparsity=None, speedup=6, tile=2)


def test_a_speedup_is_measured() -> None:
    net = quietly(wide(), samples(1, 2, shape=(2, 8, 8, 8)), sparsity=None, speedup=1.05)
    assert min(net.report.ms) > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"speedup": 1}, "speedup: 1; accepted is a number above 1"),
        ({"speedup": True}, "speedup: True; accepted is a number or None"),
        ({"speedup": 2.0, "forward": lambda net, batch: net(batch)}, "speedup: with forward= nothing is known"),
    ],
)
def test_speedups_that_are_not_accepted(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        quietly(branches(), samples(), sparsity=None, **options)


def test_a_plan_that_was_timed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 100.0, 90.0, 90.0, 80.0])
    monkeypatch.setattr(sys.modules["lrw.prune"], "_milliseconds", lambda *_: next(times))
    monkeypatch.setattr("lrw_kernels.choice.measured.Measured.milliseconds", lambda *_: 40.0)
    monkeypatch.setattr("lrw_kernels.choice.measured.Columns.__call__", lambda _, of, tile, kept: kept / 2)
    batches = samples(1, 2, shape=(2, 8, 8, 8))
    one = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)
    two = quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)
    assert [layer.size.kept for layer in two.report.layers] == [layer.size.kept for layer in one.report.layers]
    assert (one.report.ms, two.report.ms) == ((100.0, 100.0), (100.0, 90.0))
    (tmp_path / "plan.json").write_text("{")  # damaged: another is made, and the layers are not of it
    with pytest.raises(ValueError, match="of another network, other samples or settings"):
        quietly(wide(), batches, sparsity=None, speedup=2.5, tile=2, checkpoint=tmp_path)


def test_what_cannot_become_a_winograd_layer_is_left_out_and_said() -> None:
    """In half precision F(4,3) of many channels errs by more than is accepted; a Winograd layer beside it is pruned."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(64, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)).bfloat16()
    x = [torch.randn(2, 64, 6, 6, 6, dtype=torch.bfloat16)]
    with pytest.raises(ValueError, match=r"net: no layer to prune \(0: F\(4x4x4, 3x3x3\) has an error bound"):
        quietly(net, x, sparsity=0.5, tile=4)
    half = lrw.to_winograd(net, {"1": 2}, rtol=1)
    pruned = quietly(half, x, sparsity=0.5, tile=4)
    assert [layer.size.name for layer in pruned.report.layers] == ["1"]
    assert "error bound" in pruned.report.skipped["0"]


def test_a_budget_is_of_the_layers_that_can_be_pruned() -> None:
    """What cannot become a Winograd layer, here since it is too inexact in half precision, has no part in a plan."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(64, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1)).bfloat16()
    x = [torch.randn(2, 64, 6, 6, 6, dtype=torch.bfloat16)]
    half = lrw.to_winograd(net, {"1": 2}, rtol=1)
    (layer,) = quietly(half, x, sparsity=None, multiplies=0.2, tile=4).report.layers
    assert layer.size.name == "1"
    assert 0.9 * 0.2 < layer.products <= 0.2


def test_what_no_plan_keeps_to_is_refused_before_curves_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw.pruning.budget.options_of", lambda *_, **__: pytest.fail("curves are made"))
    for refused in (
        lambda: quietly(branches(), samples(), sparsity=None, multiplies=1e-4),
        lambda: check_multiplies(branches(), samples()[0], 1e-4),
    ):
        with pytest.raises(ValueError, match=r"multiplies: 0\.0001; a column in each layer takes 0\.00"):
            refused()
    check_multiplies(branches(), samples()[0], 0.1)
