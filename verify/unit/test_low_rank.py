"""Low rank: it starts at the given network, trains only the factors, counts them, and compiles."""

import pytest
import torch

import lrw
from lrw.lowrank import count_parameters
from lrw.nn import LowRankWinogradConv3d, WinogradConv3d
from verify.unit.small_nets import X, small_net, trained


def test_low_rank_starts_at_the_given_network_and_trains_only_the_factors() -> None:
    net = lrw.to_winograd(small_net(), 2)
    before, base = net(X), net[0].weight.detach().clone()
    dense_trainable = count_parameters(net)[0]
    lrw.add_low_rank(net, rank=3)
    assert torch.equal(net(X), before)
    trained(net)
    assert torch.equal(net[0].weight, base)
    assert net[0].Gr.grad is not None
    assert net[0].Gc.abs().sum() > 0
    assert count_parameters(net)[0] < dense_trainable


def test_trainable_parameters_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank={"0": 1, "2": 2})
    lrw.print_trainable_parameters(net)
    assert f"{count_parameters(net)[0]:,} of" in capsys.readouterr().out
    assert (net[0].rank, net[2].rank) == (1, 2)


def test_low_rank_layers_train_under_compile() -> None:
    layer = LowRankWinogradConv3d.of(WinogradConv3d(2, 3, 3, padding=1), 4)
    x = torch.randn(1, 2, 5, 6, 7)
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    y.sum().backward()
    torch.testing.assert_close(y, layer(x))
    assert layer.Gc.grad is not None
