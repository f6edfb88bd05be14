"""Pruning: scores follow their rule, stages only drop, the budget is kept, and a pruner resumes."""

import copy
import weakref

import numpy as np
import pytest
import torch

import lrw
from lrw.pruning import Granularity, prune_weights, weight_density
from lrw_kernels.winograd import winograd_cost
from verify.unit.lrw.small_nets import X, pruned_net, small_net, trained


def test_pruner_keeps_the_best_by_its_score() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    trained(net, pruner)
    scores = pruner.scores["0"].clone()
    kept = pruner.prune()["0"]
    assert len(kept) == 32
    assert scores[list(kept)].min() >= scores[[p for p in range(64) if p not in kept]].max()
    assert net[0].geometry.kept == kept


def test_scores_equal_an_independent_statement_of_the_rule() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    net(X).square().sum().backward()
    u, du = net[0].weight.detach().numpy().astype(np.float64), net[0].weight.grad.numpy().astype(np.float64)
    pruner.observe()
    np.testing.assert_allclose(pruner.scores["0"].numpy(), np.abs(u * du).sum(axis=(1, 2)), rtol=1e-6)


def test_gradient_accumulation_scores_the_summed_gradient() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    for half in X.split(1):
        net(half).square().sum().backward()
    pruner.observe()
    both = pruner.scores["0"].clone()
    other = lrw.to_winograd(small_net(), 2)
    whole = lrw.ColumnPruner(other, 0.5)
    other(X).square().sum().backward()
    whole.observe()
    torch.testing.assert_close(both, whole.scores["0"], rtol=1e-4, atol=0)


def test_decay_shrinks_what_was_seen_before() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5, decay=0.25)
    seen = []
    for half in X.split(1):
        net.zero_grad()
        net(half).square().sum().backward()
        pruner.observe()
        seen.append((net[0].weight * net[0].weight.grad).abs().sum(dim=(1, 2)).double().detach())
    torch.testing.assert_close(pruner.scores["0"], 0.25 * seen[0] + seen[1], rtol=1e-5, atol=0)


@pytest.mark.parametrize("scope", ["layer", "global", "multiplies"])
def test_every_layer_keeps_its_floor(scope: str) -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.99, scope=scope, floor=7, example_input=X)
    trained(net, pruner, 1)
    for name, kept in pruner.prune().items():
        assert len(kept) == 7
        scores = pruner.scores[name]
        assert set(kept) == set(scores.argsort(descending=True, stable=True)[:7].tolist())


def test_gradual_stages_only_ever_drop() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75, stages=3)
    previous = set(range(64))
    counts = []
    while not pruner.done:
        trained(net, pruner, 1)
        kept = set(pruner.prune()["0"])
        assert kept <= previous
        previous = kept
        counts.append(len(kept))
    assert counts == [30, 18, 16]  # 64 - round(64 * 0.75 * (1 - (1 - k/3)^3))


def test_multiplies_scope_stays_within_the_budget() -> None:
    net, pruner = pruned_net(0.75, scope="multiplies", example_input=X)
    spent = total = 0
    sizes = {"0": (8, 9, 10), "2": (8, 9, 10)}
    for name, layer in pruner.layers.items():
        output = layer.geometry.output_size(sizes[name])
        arguments = (layer.geometry.tile, layer.in_channels, layer.out_channels, output)
        spent += winograd_cost(*arguments, kept=layer.geometry.positions).products
        total += winograd_cost(*arguments).products
    assert spent <= 0.25 * total
    assert net(X).isfinite().all()


def test_pruner_resumes_where_it_stopped() -> None:
    def run(interrupted: bool) -> dict[str, tuple[int, ...]]:
        net = lrw.to_winograd(small_net(), 2)
        pruner = lrw.ColumnPruner(net, 0.75, stages=2)
        trained(net, pruner, 2)
        pruner.prune()
        if interrupted:
            again = lrw.to_winograd(small_net(seed=5), 2)
            resumed = lrw.ColumnPruner(again, 0.75, stages=2)
            again.load_state_dict(net.state_dict())
            resumed.load_state_dict(pruner.state_dict())
            net, pruner = again, resumed
        trained(net, pruner, 2)
        return pruner.prune()

    assert run(interrupted=True) == run(interrupted=False)


def test_a_copied_network_does_not_feed_the_pruner() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    copy.deepcopy(net)(X).square().sum().backward()
    with pytest.raises(RuntimeError, match="no gradient reached '0'"):
        pruner.observe()


def test_pruning_out_of_turn_is_refused() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    with pytest.raises(RuntimeError, match="no scores yet"):
        pruner.prune()
    trained(net, pruner, 1)
    pruner.prune()
    with pytest.raises(RuntimeError, match="all 1 stages are done"):
        pruner.prune()


def test_what_was_dropped_before_stays_dropped() -> None:
    net = lrw.to_winograd(small_net(), 2)
    prune_weights(net, 0.6)
    before = net[0].mask.clone()
    pruner = lrw.ColumnPruner(net, 0.25)
    trained(net, pruner, 1)
    pruner.prune()
    assert bool((net[0].mask <= before).all())
    assert weight_density(net)["0"] <= 0.4


def test_a_pruner_notices_that_layers_were_replaced() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    trained(net, pruner, 1)
    lrw.add_low_rank(net, 2)
    for call in (pruner.prune, pruner.observe):
        with pytest.raises(RuntimeError, match="'0' is another layer now"):
            call()
    assert net[0].geometry.columns == 64


def test_an_old_pruner_leaves_a_newer_one_alone() -> None:
    net = lrw.to_winograd(small_net(), 2)
    old, new = lrw.ColumnPruner(net), lrw.ColumnPruner(net)
    net(X).sum().backward()
    with pytest.raises(RuntimeError, match="another pruner watches it"):
        old.observe()
    old.detach()
    new.observe()
    net.requires_grad_(False)
    frozen = lrw.ColumnPruner(net)
    with pytest.raises(RuntimeError, match="its weights are frozen"):
        frozen.observe()


def test_masks_that_change_between_the_passes_do_not_mix_columns_up() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    loss = net(X).square().sum()
    net[0].keep(range(30, 37))
    loss.backward()
    pruner.observe()
    assert bool((pruner.scores["0"] > 0).all()), "what was computed was scored"


@pytest.mark.parametrize(("cin", "cout", "blocks"), [(5, 5, (4, 4)), (8, 8, (3, None)), (8, 6, (None, 4))])
@pytest.mark.parametrize("scope", ["layer", "global", "multiplies"])
def test_uneven_blocks_keep_the_share_of_weights(
    cin: int, cout: int, blocks: tuple[int | None, int | None], scope: str
) -> None:
    torch.manual_seed(0)
    net = lrw.to_winograd(torch.nn.Sequential(torch.nn.Conv3d(cin, cout, 3, padding=1)), 2)
    x = torch.randn(1, cin, 6, 6, 6)
    pruner = lrw.ColumnPruner(net, 0.5, granularity=Granularity(*blocks), scope=scope, example_input=x)
    net(x).square().sum().backward()
    pruner.observe()
    pruner.prune()
    assert weight_density(net)["0"] == pytest.approx(0.5, abs=0.02)


def test_computing_what_is_dropped_ends_with_the_pruner() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75, stages=3, regrow=True)
    trained(net, pruner, 1)
    pruner.prune()
    kept = int(net[0].mask.sum())
    assert net[0].geometry.columns == 64
    small = lrw.compress(net)
    assert (small[0].geometry.columns, net[0].geometry.columns) == (kept, 64)
    assert f"{kept} of 64 columns" in str(small.report)
    torch.testing.assert_close(small(X), net(X))
    assert copy.deepcopy(net)[0].geometry.columns == kept
    pruner.detach()
    pruner.load_state_dict(pruner.state_dict())
    assert net[0].geometry.columns == kept


def test_passes_that_overflow_are_not_counted_and_scales_are_taken_out() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5)
    schedule = lrw.PruningSchedule(pruner, score=2)
    (net(X).square().sum() * float("inf")).backward()
    assert not schedule.step()
    assert pruner.observations == 0
    (net(X).square().sum() * 1024).backward()
    schedule.step(1024.0)
    scaled = pruner.scores["0"].clone()
    other = lrw.ColumnPruner(net, 0.5)
    net(X).square().sum().backward()
    other.observe()
    torch.testing.assert_close(scaled, other.scores["0"])


def test_scoring_keeps_no_weights_of_past_passes() -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), 3)
    pruner = lrw.ColumnPruner(net, 0.5)
    formed: list[weakref.ref[torch.Tensor]] = []
    watch = net[0].observer

    def noting(layer: object, u: torch.Tensor) -> None:
        formed.append(weakref.ref(u))
        watch(layer, u)

    net[0].observer = noting
    for _ in range(3):
        net(X).square().sum().backward()
        pruner.observe()
    assert [ref() for ref in formed] == [None] * 3


def test_calibration_keeps_the_function_where_the_cut_alone_does_not() -> None:
    away = {}
    for calibrated in (False, True):
        net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), 4)
        pruner = lrw.ColumnPruner(net, 0.75, stages=2)
        trained(net, pruner)
        before = {name: layer.weights().detach().clone() for name, layer in pruner.layers.items()}
        with torch.no_grad():
            wanted = copy.deepcopy(net)[:2](X)
        factor = net[0].Gr.clone()
        kept = pruner.prune(calibration=[(X, torch.zeros(2))] if calibrated else None)
        assert all(pruner.layers[name].geometry.kept == kept[name] for name in kept)
        assert torch.equal(net[0].Gr, factor)
        with torch.no_grad():
            away[calibrated] = float((net[:2](X) - wanted).norm() / wanted.norm())
        assert calibrated != torch.equal(net[0].weights(), before["0"][list(kept["0"])])
        trained(net, pruner, 1)
        pruner.prune(calibration=[X] if calibrated else None)
        assert pruner.done
    assert away[True] < 0.8 * away[False]


def test_calibration_leaves_what_may_come_back_as_it_was() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75, stages=2, regrow=True)
    trained(net, pruner)
    before = net[0].weight.detach().clone()
    kept = pruner.prune(calibration=[X])["0"]
    dropped = [p for p in range(64) if p not in kept]
    assert torch.equal(net[0].weight[dropped], before[dropped])
    assert not torch.equal(net[0].weight[list(kept)], before[list(kept)])


def test_calibration_is_refused_before_anything_is_cut() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75)
    trained(net, pruner)
    with pytest.raises(ValueError, match=r"batches\[0\]: holds NaN"):
        pruner.prune(calibration=[X * torch.nan])
    assert net[0].geometry.columns == 64
    assert pruner.stage == 0
