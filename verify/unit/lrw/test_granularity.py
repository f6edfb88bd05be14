"""Blocks of channels: added up, masked, pruned, compressed and saved as what they are."""

import numpy as np
import pytest
import torch

import lrw
from lrw.pruning import WEIGHT, Granularity
from verify.unit.lrw.small_nets import X, small_net, trained

BLOCKS = [Granularity(), WEIGHT, Granularity(2), Granularity(None, 3), Granularity(3, 2), Granularity(100, 100)]


@pytest.mark.parametrize("granularity", BLOCKS, ids=str)
def test_sums_weights_and_mask_are_those_of_loops_over_blocks(granularity: Granularity) -> None:
    x = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    size_in, size_out = min(granularity.inputs or 7, 7), min(granularity.outputs or 4, 4)
    expected = np.array(
        [
            [
                [x[k, i : i + size_in, o : o + size_out].sum() for o in range(0, 4, size_out)]
                for i in range(0, 7, size_in)
            ]
            for k in range(5)
        ]
    )
    np.testing.assert_allclose(granularity.sums(x).numpy(), expected, rtol=1e-12)
    assert expected.shape[1:] == granularity.grid(7, 4)
    assert granularity.weights(7, 4).sum() == 28
    blocks = torch.from_numpy(expected) > 0
    mask = granularity.mask(blocks, 7, 4).expand(5, 7, 4)
    for i in range(7):
        for o in range(4):
            assert torch.equal(mask[:, i, o], blocks[:, i // size_in, o // size_out])


def test_grouped_columns_are_kept_by_the_score_of_their_block() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5, granularity=Granularity(None, 2))
    net(X).square().sum().backward()
    layer = pruner.layers["2"]
    u, du = layer.weight.detach().double(), layer.weight.grad.double()
    pruner.observe()
    expected = (u * du).abs().view(layer.geometry.tile.positions, 4, 3, 2).sum(dim=(1, 3))
    torch.testing.assert_close(pruner.scores["2"].view(-1, 3), expected)
    kept = pruner.prune()["2"]
    assert len(kept) == expected.numel() // 2
    assert set(kept) == set(expected.flatten().argsort(descending=True, stable=True)[: len(kept)].tolist())
    assert layer.mask.shape == (layer.geometry.tile.positions, 1, 6)
    assert torch.equal(layer.mask[:, 0, ::2].flatten().nonzero().flatten(), torch.tensor(kept))


@pytest.mark.parametrize("granularity", [Granularity(2, 3), WEIGHT], ids=str)
def test_masked_compressed_and_saved_networks_compute_the_same(granularity: Granularity, tmp_path: object) -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=4)
    pruner = lrw.ColumnPruner(net, 0.75, granularity=granularity, stages=2)
    dropped: torch.Tensor | None = None
    while not pruner.done:
        trained(net, pruner, 1)
        pruner.prune()
        gone = ~net[2].mask.expand(-1, 4, 6)
        assert dropped is None or bool((gone >= dropped).all()), "stages only drop"
        dropped = gone
    trained(net)
    layer = net[2]
    computed = layer.weights().detach()
    assert bool((computed[~layer.rows(layer.mask).expand_as(computed)] == 0).all())
    kept = float(pruner.granularity.weights(4, 6).sum() * layer.geometry.tile.positions)
    assert abs(int(layer.mask.expand(-1, 4, 6).sum()) / kept - 0.25) < 0.1
    torch.testing.assert_close(lrw.compress(net)(X), net(X))
    loaded = lrw.load(lrw.save(net, f"{tmp_path}/net.safetensors"), small_net())
    assert torch.equal(loaded(X), net(X))
    assert torch.equal(loaded[2].mask, layer.mask)


def test_retraining_leaves_dropped_weights_at_zero_and_moves_the_others() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.5, granularity=WEIGHT)
    trained(net, pruner, 1)
    pruner.prune()
    before = net[0].weight.detach().clone()
    trained(net)
    moved = net[0].weight.detach() != before
    assert bool(moved[net[0].mask].any())
    assert not bool(moved[~net[0].mask].any())


def test_dropped_columns_come_back_only_where_they_may() -> None:
    def kept_after(regrow: bool) -> tuple[set[int], set[int]]:
        net = lrw.to_winograd(small_net(), 2)
        pruner = lrw.ColumnPruner(net, 0.5, stages=2, decay=1e-9, regrow=regrow)
        layer = pruner.layers["0"]
        trained(net, pruner, 1)
        first = set(pruner.prune()["0"])
        with torch.no_grad():  # what was dropped becomes far more important than what was kept
            layer.weight[[p for p in range(64) if p not in first]] *= 100
        expected = net(X)
        assert layer.geometry.columns == (64 if regrow else len(first))
        pruned = lrw.compress(net)
        torch.testing.assert_close(pruned(X), expected)
        trained(net, pruner, 1)
        second = set(pruner.prune()["0"])
        assert layer.geometry.columns == len(second)
        return first, second

    first, second = kept_after(regrow=False)
    assert second <= first
    first, second = kept_after(regrow=True)
    assert len(second - first) > len(second) // 2


def test_floors_by_layer_and_shares_of_all_columns() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = lrw.ColumnPruner(net, 0.75, scope="global", floor={"2": 9})
    trained(net, pruner, 1)
    kept = pruner.prune()
    assert len(kept["0"]) + len(kept["2"]) == (64 + 16) // 4
    assert len(kept["2"]) >= 9
    for wrong, words in (({"1": 2}, "names '1'"), ({"2": 17}, "floor: 17"), (0, "floor: 0")):
        with pytest.raises(ValueError, match=words):
            lrw.ColumnPruner(net, 0.75, floor=wrong)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="granularity inputs: 0"):
        Granularity(0)
    layer = lrw.WinogradConv3d(2, 3)
    for shape in ((64, 2, 2), (63, 1, 1), (64, 1), (1, 1, 1)):
        with pytest.raises(ValueError, match="mask: shape"):
            layer.keep_weights(torch.ones(shape, dtype=torch.bool))
