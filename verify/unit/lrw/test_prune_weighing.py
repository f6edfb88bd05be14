"""What errors of a layer count, where a network gives class scores: more where its answer is in doubt."""

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d
from lrw.pruning.calibration import Calibration, survey
from lrw.pruning.layerwise import draw
from lrw.pruning.weighing import Weight, gives_scores, weights
from verify.unit.lrw.prunable import quietly


class Scores(nn.Module):
    """Two classes for each voxel, told apart tenfold better where the input is above zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv3d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        sure = 1 + 9 * (x.mean(1, keepdim=True) > 0)
        return self.head(self.relu(self.conv(x))) * sure


def halves(samples: int) -> Tensor:
    """Volumes [N, 4, 4, 8, 8] above zero on the left, below it on the right."""
    x = torch.rand(samples, 4, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5
    x[..., 4:] *= -1
    return x


def weighed(net: nn.Module, x: Tensor, scores: bool | None = None) -> dict[str, Weight]:
    """Of the layers of `net` at tile 2, all of whose tiles are looked at."""
    calibration, whole = Calibration.of(x), lrw.to_winograd(net, 2)
    layers = named_layers(whole, WinogradConv3d)
    sites = survey(whole, calibration, layers)
    draws = [draw(n, layer, sites[n], calibration, voxels=10**9, seed=0) for n, layer in layers.items()]
    return weights(net, calibration, draws, scores)


def test_tiles_count_where_the_answer_is_in_doubt() -> None:
    torch.manual_seed(0)
    net = Scores().eval()
    net.head.bias.data = torch.tensor([1.0, -1.0])
    weight = weighed(net, halves(3))["conv"]
    assert weight.tiles.shape == (3 * 2 * 4 * 4,)
    assert weight.channels.shape == (8,)
    for of in weight:
        assert float(of.square().mean()) == pytest.approx(1, rel=1e-5)
    left, right = weight.tiles.view(3, 2, 4, 2, 2).mean((0, 1, 2, 4))
    assert float(right) > 3 * float(left)


def test_the_order_of_samples_does_not_matter() -> None:
    torch.manual_seed(0)
    net, x = Scores().eval(), halves(4)
    one, other = weighed(net, x)["conv"], weighed(net, x.flip(0))["conv"]
    torch.testing.assert_close(other.tiles.view(4, -1).flip(0), one.tiles.view(4, -1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(other.channels, one.channels, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("last", "gives"),
    [
        (nn.Identity(), True),
        (nn.Conv3d(2, 1, 1), False),  # a single number
        (nn.Flatten(0), False),
    ],
)
def test_class_scores_are_told_by_their_form(last: nn.Module, gives: bool) -> None:
    net = nn.Sequential(Scores(), last).eval()
    assert gives_scores(net, Calibration.of(halves(2))) is gives
    pruned = quietly(net, [halves(2)], sparsity=0.5)
    assert pruned.report.weighed is gives
    assert not quietly(net, [halves(2)], sparsity=0.5, scores=False).report.weighed


def test_where_no_gradient_goes_nothing_is_weighed() -> None:
    class Detached(Scores):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    assert weighed(Detached().eval(), halves(2)) == {}
    with pytest.raises(ValueError, match="scores: no gradient comes from class scores"):
        weighed(Detached().eval(), halves(2), scores=True)


def test_ragged_edges_count_as_they_are() -> None:
    """Where every voxel is in the same doubt all tiles count the same, also those of a single voxel."""
    net = nn.Conv3d(4, 2, 3, padding=1)
    nn.init.zeros_(net.weight)
    calibration, whole = Calibration.of(halves(2)[:, :, :3, :5, :7]), lrw.to_winograd(nn.Sequential(net), 2)
    layers = named_layers(whole, WinogradConv3d)
    sites = survey(whole, calibration, layers)
    draws = [draw(n, layer, sites[n], calibration, voxels=10**9, seed=0) for n, layer in layers.items()]
    tiles = weights(nn.Sequential(net), calibration, draws)["0"].tiles
    assert tiles.shape == (2 * 2 * 3 * 4,)
    torch.testing.assert_close(tiles, torch.ones_like(tiles))


def test_the_network_stays_as_it_was() -> None:
    net, x = Scores().eval(), halves(2)
    before = net(x)
    assert weighed(net, x)
    assert torch.equal(net(x), before)
    assert all(p.grad is None for p in net.parameters())
    assert not net.conv._forward_hooks


def test_whoever_prunes_while_training_may_say_how_errors_count() -> None:
    weights = []
    for scores in (None, True, False):
        torch.manual_seed(0)
        net = lrw.to_winograd(Scores(), {"conv": 2})
        schedule = lrw.PruningSchedule(lrw.ColumnPruner(net, 0.5), score=1, calibration=halves(2), scores=scores)
        net(halves(2)).square().mean().backward()
        assert schedule.step()
        weights.append(net.conv.weights().detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])
