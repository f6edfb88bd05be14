"""Pruning: scores follow their rule, stages only drop, the budget is kept, and a pruner resumes."""

import copy

import numpy as np
import pytest
import torch

import lrw
from lrw_kernels.winograd import winograd_cost
from verify.unit.small_nets import X, pruned_net, small_net, trained


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
