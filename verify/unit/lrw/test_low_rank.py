"""Low rank: it starts at the given network, trains only the factors, counts them, and compiles."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint_sequential

import lrw
from lrw.lowrank import count_parameters
from lrw.nn import LowRankWinogradConv3d, WinogradConv3d
from lrw.pruning import NativePruner, scale_gradients
from verify.unit.lrw.small_nets import X, small_net, trained


@pytest.mark.parametrize("units", ["none", "importance", "gram"])
@pytest.mark.parametrize("init", ["principal", "gc_zero", "gr_zero"])
def test_low_rank_starts_at_the_given_network_and_trains_only_the_factors(init: str, units: str) -> None:
    net = lrw.to_winograd(small_net(), 2)
    before, dense_trainable = net(X), count_parameters(net)[0]
    lrw.add_low_rank(net, rank=3, init=init, units=units)
    base = net[0].weight.detach().clone()
    torch.testing.assert_close(net(X), before)
    assert init == "principal" or torch.equal(net(X), before)
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


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_weight_decay_moves_the_factors_only(kind: type[torch.optim.Optimizer]) -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)
    base = net[0].weight.detach().clone()
    optimizer = kind([p for p in net.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    before = float(net(X).square().mean().detach())
    for _ in range(5):
        optimizer.zero_grad()
        loss = net(X).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < before
    assert torch.equal(net[0].weight, base)
    assert bool((net[0].Gc != 0).any())


def test_mixed_precision_and_gradient_checkpointing_give_the_same_gradients() -> None:
    def gradients(mixed: bool, again: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)
        with torch.no_grad():
            net[0].Gc.normal_(), net[2].Gc.normal_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            y = checkpoint_sequential(net, 3, X, use_reentrant=False) if again else net(X)
        y.float().square().mean().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.grad is not None}

    plain = gradients(mixed=False, again=False)
    assert {"0.Gr", "0.Gc", "2.Gr", "2.Gc"} <= set(plain)
    for name, gradient in gradients(mixed=False, again=True).items():
        torch.testing.assert_close(gradient, plain[name])
    for name, gradient in gradients(mixed=True, again=False).items():
        assert gradient.dtype == torch.float32
        assert torch.cosine_similarity(gradient.flatten(), plain[name].flatten(), dim=0) > 0.97, name


def test_principal_factors_take_over_the_largest_directions() -> None:
    net = lrw.to_winograd(small_net(), 2)
    before, base = net(X), net[2].weight.detach().clone()
    lrw.add_low_rank(net, rank=3, units="none")
    torch.testing.assert_close(net(X), before)
    values = torch.linalg.svdvals(base.flatten(1))
    torch.testing.assert_close(torch.linalg.svdvals(net[2].weight.flatten(1))[:-3], values[3:], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="init: 'best'; accepted are gc_zero, gr_zero, principal"):
        LowRankWinogradConv3d.of(WinogradConv3d(2, 3), 2, "best")


def test_merging_keeps_the_function_and_the_mask() -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)
    trained(net)
    net[0].keep(range(3, 40))
    expected = net(X)
    merged = lrw.merge_low_rank(net)
    assert type(merged[0]) is WinogradConv3d
    torch.testing.assert_close(merged(X), expected)
    assert merged[0].geometry.columns == 37
    assert merged[0].weight.requires_grad
    assert "Gr" not in dict(merged[0].named_parameters())
    trained(merged)
    with pytest.raises(ValueError, match="no low-rank layer"):
        lrw.merge_low_rank(merged)


@pytest.mark.parametrize(
    ("optimizer", "kept"),
    [
        (lambda p: torch.optim.AdamW(p, lr=1e-3), 2),
        (lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True), 3),
        (lambda p: torch.optim.SGD(p, lr=1e-3), 0),
        (lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9), 1),
    ],
)
def test_training_size_is_what_the_optimizer_comes_to_hold(optimizer: Any, kept: int) -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=3)
    chosen = optimizer([p for p in net.parameters() if p.requires_grad])
    size = lrw.training_size(net, chosen)
    assert (size.trainable, size.total) == count_parameters(net)
    assert size.optimizer_bytes == 4 * kept * size.trainable
    net(X).sum().backward()
    assert size.gradient_bytes == sum(4 * p.grad.numel() for p in net.parameters() if p.grad is not None)
    chosen.step()
    held = [t for state in chosen.state.values() for t in state.values() if torch.is_tensor(t) and t.dim() > 0]
    assert size.optimizer_bytes == sum(t.numel() * t.element_size() for t in held)
    assert lrw.training_size(net, chosen) == size
    assert f"{size.optimizer_bytes:,} bytes" in str(size)


@pytest.mark.parametrize(("cin", "cout", "rank"), [(1, 4, 40), (8, 8, 64)])
def test_principal_factors_stay_small_where_directions_run_out(cin: int, cout: int, rank: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv3d(cin, cout, 3, padding=1)
    layer = LowRankWinogradConv3d.of(WinogradConv3d.from_conv3d(conv), rank, "principal")
    assert float(layer.Gr.detach().abs().max()) < 10
    x = torch.randn(1, cin, 6, 6, 6)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-3, atol=1e-4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = layer(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[0]
    with torch.no_grad():
        conv.weight.zero_()
    empty = LowRankWinogradConv3d.of(WinogradConv3d.from_conv3d(conv), 3, "principal")
    assert bool((empty.Gc == 0).all())
    assert bool((empty.Gr != 0).any()), "or it would never train"


def test_principal_factors_are_those_of_what_is_kept() -> None:
    torch.manual_seed(0)
    pruned = WinogradConv3d(6, 6, padding=1)
    pruned.keep(range(10, 15))
    layer = LowRankWinogradConv3d.of(pruned, 5, "principal")
    rest = layer.weight[10:15]
    assert float(rest.norm()) < 1e-4 * float(pruned.weight[10:15].norm())
    assert layer.mask is not pruned.mask


def test_an_optimizer_without_a_fixed_state_is_refused() -> None:
    net = lrw.to_winograd(small_net(), 2)
    with pytest.raises(ValueError, match="optimizer: LBFGS"):
        lrw.training_size(net, torch.optim.LBFGS(net.parameters()))


def test_weights_in_units_of_their_importance_are_the_same_layer(tmp_path: Path) -> None:
    """Converted, pruned, adopted, saved and loaded, given factors: all but the parameters is as in units of U."""
    plain, net = (lrw.to_winograd(small_net(), 4, units=units) for units in ("none", "importance"))
    torch.testing.assert_close(net(X), plain(X), rtol=1e-4, atol=1e-5)
    sizes = net[2].weight.detach().flatten(1).norm(dim=1)
    raw = plain[2].weight.detach().flatten(1).norm(dim=1)
    assert float(sizes.max() / sizes.min()) < 0.5 * float(raw.max() / raw.min())
    for model in (plain, net):
        model[0].keep(range(3, 150))
        u = torch.randn(*model[0].weight.shape, generator=torch.Generator().manual_seed(1))
        model[0].adopt(u, model[0].mask)
    torch.testing.assert_close(net(X), plain(X), rtol=1e-3, atol=1e-3)
    lrw.save(net, tmp_path / "net.safetensors")
    loaded = lrw.load(tmp_path / "net.safetensors", small_net())
    assert loaded[0].units == "importance"
    assert torch.equal(loaded(X), net(X))
    torch.testing.assert_close(copy.deepcopy(net)(X), net(X), rtol=0, atol=0)
    torch.testing.assert_close(lrw.compress(net)(X), net(X), rtol=1e-4, atol=1e-4)
    expected = net(X)
    low = lrw.add_low_rank(net, rank=4)
    torch.testing.assert_close(low(X), expected, rtol=1e-3, atol=1e-3)
    assert lrw.merge_low_rank(low)[0].units == "none"


def test_units_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="units: 'gram'; accepted are none, importance"):
        lrw.to_winograd(small_net(), 2, units="gram")
    with pytest.raises(ValueError, match="units: 'x'; accepted are none, importance, gram"):
        LowRankWinogradConv3d.of(WinogradConv3d(2, 3), 2, units="x")
    net = lrw.to_winograd(small_net(), 2, units="importance")
    trained(net)
    with pytest.raises(ValueError, match="counts its weights in units of their own; accepted is units='none'"):
        scale_gradients(net)


def test_native_pruning_judges_u_whatever_its_units() -> None:
    nonzero = []
    for units in ("none", "importance"):
        torch.manual_seed(0)
        layer = WinogradConv3d.from_conv3d(torch.nn.Conv3d(3, 5, 3, padding=1), 2, units=units)
        layer(torch.randn(2, 3, 6, 6, 6, generator=torch.Generator().manual_seed(0))).square().mean().backward()
        NativePruner(layer, 1e-2).step()
        nonzero.append(layer.weight != 0)
    assert 0.2 < float(nonzero[0].double().mean()) < 0.9
    assert float((nonzero[0] == nonzero[1]).double().mean()) > 0.999


def test_a_rank_is_no_larger_than_a_layer_has_positions() -> None:
    """The 3x1x1 layers of R(2+1)D have four positions at tile 2."""
    torch.manual_seed(0)
    convs = (torch.nn.Conv3d(2, 4, (1, 3, 3), padding=(0, 1, 1)), torch.nn.Conv3d(4, 4, (3, 1, 1), padding=(1, 0, 0)))
    net = lrw.add_low_rank(lrw.to_winograd(torch.nn.Sequential(*convs), 2), rank=8)
    assert net.report.ranks == {"0": 8, "1": 4}
    assert net.report.capped == ("1",)
    assert str(net.report).splitlines() == [
        "0: rank 8", "1: rank 4, which are all its positions: its update is no smaller than its weights"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="rank of '1': 5; accepted are whole numbers from 1 to 4"):
        lrw.add_low_rank(lrw.to_winograd(torch.nn.Sequential(*convs), 2), rank={"1": 5})


def test_one_volume_goes_without_a_batch() -> None:
    conv = torch.nn.Conv3d(2, 3, 3, padding=1)
    x = torch.randn(2, 5, 6, 7)
    layer = WinogradConv3d.from_conv3d(conv)
    torch.testing.assert_close(layer(x), conv(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(lrw.compress(torch.nn.Sequential(layer))(x), conv(x), rtol=1e-4, atol=1e-5)
