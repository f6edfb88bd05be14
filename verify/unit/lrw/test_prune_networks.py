"""lrw.prune on networks of all kinds: branches, layers used twice or folded, pruned before, tied, with batch norms."""

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.pruning import Granularity
from lrw.pruning.calibration import Calibration
from verify.unit.lrw.prunable import branches, far, quietly, samples
from verify.unit.lrw.small_nets import X, pruned_net, small_net


def test_any_network_is_pruned_nearer_than_by_the_cut() -> None:
    net, batches, fresh = branches(), samples(), samples(seed=9)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    pruned = quietly(net, batches)
    report = pruned.report
    assert [layer.size.name for layer in report.layers] == ["stem", "twice", "flat"]
    assert [(layer.size.kept, layer.size.columns) for layer in report.layers] == [(32, 64), (32, 64), (8, 16)]
    assert set(report.skipped) == {"unused", "strided"}
    assert all(layer.errors.fitted < 0.9 * layer.errors.cut for layer in report.layers)
    cut = lrw.to_winograd(net, 2)
    for layer in report.layers:
        cut.get_submodule(layer.size.name).keep(pruned.get_submodule(layer.size.name).geometry.positions)
    assert far(pruned, net, batches) < 0.8 * far(cut, net, batches)
    assert far(pruned, net, fresh) < 0.9 * far(cut, net, fresh)
    assert not any(bool((before[name] != t).any()) for name, t in net.state_dict().items())
    assert not any(m._forward_hooks for n in (net, pruned) for m in n.modules())


def test_what_was_dropped_before_stays_so_and_counts() -> None:
    net, batches = branches(), samples()
    half = quietly(net, batches)
    for more in (0.0, 0.25, 0.5):
        again = quietly(half, batches, sparsity=more)
        assert [layer.size.kept for layer in again.report.layers] == [32, 32, 8]
        assert again.twice.geometry.kept == half.twice.geometry.kept
    fewer = quietly(half, batches, sparsity=0.75)
    assert set(fewer.twice.geometry.positions) < set(half.twice.geometry.positions)
    planned = quietly(half, batches, sparsity=None, multiplies=0.2)
    assert far(planned, half, batches) < 0.05  # it is that small already
    assert all(layer.size.kept > 4 for layer in planned.report.layers)


def test_networks_without_floating_outputs_are_pruned_and_planned() -> None:
    batches = samples()
    for options in ({"sparsity": 0.5}, {"sparsity": None, "multiplies": 0.1}):
        net = quietly(branches(), batches, forward=lambda n, x: n(x)[1]["where"], **options)
        assert net.report.error is None
        assert "outputs are off" not in str(net.report)
        assert min(layer.size.kept for layer in net.report.layers) > 1


def test_layers_that_see_several_volumes_a_sample_weigh_as_many() -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.many = (nn.Conv3d(4, 4, 3, padding=1) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.one(x).relu()
            parts = y.unfold(2, 4, 4).unfold(3, 4, 4).unfold(4, 4, 4)  # [N, C, 2, 2, 2, 4, 4, 4]
            return self.many(parts.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(-1, 4, 4, 4, 4)).mean((2, 3, 4))

    torch.manual_seed(0)
    net = Folded().eval()
    planned = quietly(net, samples(shape=(4, 8, 8, 8)), sparsity=None, multiplies=0.1)
    one, many = planned.report.layers
    assert (one.products + many.products) / 2 == pytest.approx(0.1, abs=0.02)  # both make 512 outputs a sample


def test_layers_whose_batch_is_no_multiple_of_the_samples_are_looked_at_as_much() -> None:
    class Less(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(4, 8, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x[:-1])

    torch.manual_seed(0)
    net = Less().eval()
    batches = samples(2, 9)
    pruned = quietly(net, batches, voxels=4096)
    with torch.no_grad():
        ours, theirs = (torch.cat([n(x) for x in batches]) for n in (pruned, net))
    off = float((ours - theirs).norm() / theirs.norm())
    assert off == pytest.approx(pruned.report.layers[0].errors.fitted, rel=0.2)


def test_winograd_layers_are_pruned_as_they_are() -> None:
    net, _ = pruned_net(0.5)
    pruned = quietly(net, [X], sparsity=0.75, spare=())
    layer = pruned.get_submodule("0")
    assert isinstance(layer, lrw.LowRankWinogradConv3d)
    assert layer.geometry.columns == 16
    assert set(layer.geometry.positions) <= set(net[0].geometry.positions)  # what was gone costs nothing
    assert torch.equal(layer.Gr, net[0].Gr)
    assert far(pruned, net, [X]) < 1


def test_layers_of_few_inputs_are_spared() -> None:
    pruned = quietly(small_net(), [X])
    assert pruned.report.skipped["0"].startswith("1 input channels are too few")
    assert isinstance(pruned[0], nn.Conv3d)
    assert isinstance(quietly(small_net(), [X], spare=())[0], lrw.WinogradConv3d)
    named = quietly(small_net(), [X], spare=("2",))
    assert named.report.skipped["2"] == "spared"


def test_statistics_are_taken_anew_where_that_helps() -> None:
    net, batches = branches(), [3 * x + 1 for x in samples()]
    pruned = quietly(net, batches, sparsity=0.9)
    kept, taken = pruned.report.error, pruned.report.statistics
    other = quietly(net, batches, sparsity=0.9)
    with torch.no_grad():
        other.norm.load_state_dict(net.norm.state_dict())
    from lrw.pruning.statistics import Wanted

    as_before = Wanted(net, Calibration.of(batches)).distance(other)
    assert kept <= as_before * (1 + 1e-6)
    assert taken is (kept < as_before * (1 - 1e-6))
    assert not pruned.norm.training
    assert pruned.norm.momentum == net.norm.momentum
    plain = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
    assert quietly(plain, batches).report.statistics is None


def test_statistics_of_norms_that_no_sample_reaches_stay() -> None:
    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.aside = nn.Conv3d(4, 4, 3, padding=1), nn.BatchNorm3d(4), nn.BatchNorm3d(4)
            self.head = nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(self.conv(x)).mean((2, 3, 4)))

    torch.manual_seed(0)
    net = Aside().train()
    net.aside.running_mean.fill_(3.0)  # type: ignore[union-attr]
    pruned = quietly(net, samples(2, 5), sparsity=0.9)
    assert bool((pruned.aside.running_mean == 3).all())
    assert all(m.training for m in pruned.modules())
    single = quietly(net, samples(1, 1), sparsity=0.9)  # one value for each channel of the head has no variance
    assert single.report.statistics is False
    assert torch.equal(single.norm.running_mean, net.norm.running_mean)  # type: ignore[arg-type]


@pytest.mark.parametrize("granularity", [Granularity(None, 4), Granularity(4, None), Granularity(3, 5)])
def test_blocks_of_channels(granularity: Granularity) -> None:
    net, batches = branches(), samples()
    pruned = quietly(net, batches, granularity=granularity)
    assert float(pruned.twice.mask.double().expand(64, 8, 8).mean()) == pytest.approx(0.5, abs=0.01)
    assert all(layer.errors.fitted < layer.errors.cut for layer in pruned.report.layers)
    small = lrw.compress(pruned)
    assert far(small, pruned, batches) < 1e-5


def test_blocks_that_keep_nothing() -> None:
    net = lrw.to_winograd(branches(), 2)
    with torch.no_grad():
        net.twice.weight[:, :, :4] *= 1e-6
        net.twice.mask = torch.ones(64, 1, 8, dtype=torch.bool)
        net.twice.mask[:, :, :4] = False
    pruned = quietly(net, samples())
    assert not bool(pruned.twice.mask[:, :, :4].any())
    assert bool(torch.isfinite(pruned.twice.weights()).all())


def test_tied_layers_are_left_alone() -> None:
    net = branches()
    net.stem2 = nn.Conv3d(4, 8, 3, padding=1)
    net.stem2.weight = net.stem.weight
    pruned = quietly(net, samples(), sparsity=None, multiplies=0.1)
    assert [layer.size.name for layer in pruned.report.layers] == ["twice", "flat"]
    assert "shared" in pruned.report.skipped["stem"] or "too" in pruned.report.skipped["stem"]


def test_modes_stay() -> None:
    net = branches()
    net.train()
    net.norm.eval()
    pruned = quietly(net, samples())
    assert pruned.training
    assert not pruned.norm.training
    assert pruned.twice.training
    assert net.training


def test_double_and_half_precision() -> None:
    batches = samples()
    double = quietly(branches().double(), [x.double() for x in batches])
    assert double.twice.weight.dtype == torch.float64
    assert far(double, branches().double(), [x.double() for x in batches]) < 0.5
    half = quietly(branches().bfloat16(), [x.bfloat16() for x in batches])
    assert half.twice.weight.dtype == torch.bfloat16
