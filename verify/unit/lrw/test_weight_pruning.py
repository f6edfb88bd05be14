"""The element-wise methods, each beside a plain NumPy statement of its rule, in 3D and in 2D (tiles of depth 1)."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import lrw
from lrw.nn import WinogradConv3d
from lrw.pruning import (
    NativePruner,
    SpatialPruner,
    keep_nonzero,
    prune_weights,
    scale_gradients,
    weight_density,
)
from lrw_kernels.winograd import Tile, supports
from verify.unit.lrw.small_nets import X, small_net, trained

CUBE, FLAT = (3, 3, 3), (1, 3, 3)


def layer_of(kernel: tuple[int, int, int], m: int, seed: int = 0) -> WinogradConv3d:
    torch.manual_seed(seed)
    return WinogradConv3d(3, 4, kernel, padding=tuple(r // 2 for r in kernel), tile=m)


def rows_of(tile: Tile, name: str) -> list[NDArray[np.float64]]:
    return [np.array([[float(v) for v in row] for row in getattr(axis, name)]) for axis in tile.axes]


def norm_products(tile: Tile, *names: str) -> NDArray[np.float64]:
    """[T]: products over the axes of row norms, by three plain loops."""
    d, h, w = (
        np.prod([np.sqrt((rows_of(tile, n)[axis] ** 2).sum(axis=1)) for n in names], axis=0) for axis in range(3)
    )
    return np.array([a * b * c for a in d for b in h for c in w])


@pytest.mark.parametrize("kernel", [CUBE, FLAT])
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("measure", ["magnitude", "weighted_magnitude"])
def test_the_largest_weights_stay(kernel: tuple[int, int, int], m: int, measure: str) -> None:
    layer = layer_of(kernel, m)
    u = layer.weight.detach().numpy().astype(np.float64)
    f = norm_products(layer.geometry.tile, "A", "B") if measure == "weighted_magnitude" else np.ones(len(u))
    size = np.abs(u) * f[:, None, None]
    density = prune_weights(layer, 0.6, measure=measure)[""]
    keep = round(0.4 * u.size)
    assert density == keep / u.size
    mask = layer.mask.numpy()
    assert size[mask].min() >= size[~mask].max()
    assert torch.equal(layer.weights() != 0, layer.rows(layer.mask))


def test_pruning_again_only_drops_more() -> None:
    net = lrw.to_winograd(small_net(), 2)
    prune_weights(net, 0.3, spare=["0"])
    first = net[2].mask.clone()
    trained(net)
    with torch.no_grad():
        net[2].weight[~first.any(dim=2).any(dim=1)] += 100
    prune_weights(net, 0.6, spare=["0"])
    assert bool((net[2].mask <= first).all())
    assert weight_density(net)["0"] == 1
    assert weight_density(net)["2"] == pytest.approx(0.4, abs=0.01)
    for wrong, words in (
        ({"sparsity": 0.5}, "weights already, fewer than that"),
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": 0.7, "measure": "size"}, "measure: 'size'"),
        ({"sparsity": 0.7, "spare": ["9"]}, "spare: names '9'"),
    ):
        with pytest.raises(ValueError, match=words):
            prune_weights(net, **({"spare": ["0"]} | wrong))  # type: ignore[arg-type]


def test_gradients_are_divided_by_the_importance() -> None:
    net = lrw.to_winograd(small_net(), 4)
    with pytest.raises(RuntimeError, match="'0' has no gradient"):
        scale_gradients(net)
    net(X).square().sum().backward()
    before = net[0].weight.grad.clone()
    scale_gradients(net)
    f = norm_products(net[0].geometry.tile, "A", "B")
    expected = before.numpy() / ((f / f.min()) ** 1.5)[:, None, None]
    np.testing.assert_allclose(net[0].weight.grad.numpy(), expected, rtol=1e-5)


def test_importance_of_the_standard_tiles_is_what_the_authors_store() -> None:
    """Their constants: f^2 = [2, 4, 4, 2] for F(2,3), [42, 136, 136, 850, 850, 42] for F(4,3) with points 0, 1, 2."""
    f = norm_products(Tile.of((1, 1, 2), (1, 1, 3)), "A", "B") ** 2
    np.testing.assert_allclose(f, [2, 4, 4, 2])
    standard = Tile.parse("F(1x1x4,1x1x3)@0,0,0[;;0 1 -1 2 -2]")
    np.testing.assert_allclose(norm_products(standard, "A", "B") ** 2, [42, 136, 136, 850, 850, 42])


@pytest.mark.parametrize("kernel", [CUBE, FLAT])
def test_native_pruning_zeroes_what_its_rule_says(kernel: tuple[int, int, int]) -> None:
    layer = layer_of(kernel, 4)
    pruner = NativePruner(layer, threshold=0.03, factor=5)
    with pytest.raises(RuntimeError, match="no gradient"):
        pruner.step()
    layer(torch.randn(1, 3, 6, 6, 6)).square().mean().backward()
    u, g = (t.detach().numpy().astype(np.float64) for t in (layer.weight, layer.weight.grad))
    norms = norm_products(layer.geometry.tile, "A")[:, None, None]
    bound = 1 / (np.abs(g) / 0.03 + 1 / (5 * 0.03)) / norms  # as SkimCaffe writes it
    gone = np.abs(u) <= bound
    assert 0 < gone.mean() < 1
    share = pruner.step()[""]
    np.testing.assert_array_equal(layer.weight.detach().numpy() == 0, gone)
    assert share == pytest.approx(1 - gone.mean())
    pruner.finish()
    assert weight_density(layer)[""] == pytest.approx(1 - gone.mean())
    for wrong in ({"threshold": 0.0}, {"factor": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NativePruner(layer, **wrong)


def test_zeros_of_native_pruning_may_come_back_until_it_is_finished() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = NativePruner(net, threshold=1e-2)
    trained(net, None, 1)
    pruner.step()
    gone = net[0].weight == 0
    assert bool(gone.any())
    trained(net, None, 1)
    assert bool((net[0].weight[gone] != 0).any())
    pruner.step()
    pruner.finish()
    zero = net[0].weight == 0
    trained(net, None, 2)
    assert bool((net[0].weights()[(net[0].rows(zero))] == 0).all())


@pytest.mark.parametrize(
    ("tile", "sizes"),
    [
        (Tile.of((1, 2, 2), FLAT), {1: 4, 3: 8, 9: 4}),
        (Tile.of((1, 4, 4), FLAT), {1: 4, 3: 16, 9: 16}),
        (Tile.of(2, CUBE), {1: 8, 3: 24, 9: 24, 27: 8}),
        (Tile.of(4, CUBE), {1: 8, 3: 48, 9: 96, 27: 64}),
    ],
    ids=lambda value: value.name if isinstance(value, Tile) else "",
)
def test_groups_of_taps_have_the_published_sizes(tile: Tile, sizes: dict[int, int]) -> None:
    counts = supports(tile).sum(axis=1)
    assert {int(n): int((counts == n).sum()) for n in set(counts.tolist())} == sizes


def expected_taps(w: NDArray[np.float64], tile: Tile, threshold: float) -> NDArray[np.bool_]:
    """The authors' rule for one kernel, by loops: a group goes whole if its largest tap is below the threshold."""
    g_d, g_h, g_w = rows_of(tile, "G")
    kept = np.ones(w.size, dtype=bool)
    for d in g_d:
        for h in g_h:
            for row in g_w:
                group = np.einsum("i,j,k->ijk", d, h, row).ravel() != 0
                if np.abs(w.ravel()[group]).max() < threshold:
                    kept[group] = False
    return kept.reshape(w.shape)


@pytest.mark.parametrize("kernel", [CUBE, FLAT])
@pytest.mark.parametrize("m", [2, 4])
def test_spatial_masks_follow_the_rule_and_reach_the_share(kernel: tuple[int, int, int], m: int) -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(6, 8, kernel, padding=tuple(r // 2 for r in kernel))
    with torch.no_grad():
        conv.weight *= torch.rand(8, 6, 1, 1, 1) ** 2  # some kernels small as a whole
    before = conv.weight.detach().numpy().astype(np.float64)
    pruner = SpatialPruner(conv, m)
    reached = pruner.prune(0.4)[""]
    assert reached == pytest.approx(0.4, abs=0.02)
    mask = pruner.masks[""].numpy()
    tile = Tile.of(m, kernel)
    threshold = np.abs(before)[~mask].max() + 1e-12
    np.testing.assert_array_equal(mask, [[expected_taps(w, tile, threshold) for w in row] for row in before])
    layer = WinogradConv3d.from_conv3d(conv, m)
    assert float((layer.weight == 0).double().mean()) == pytest.approx(reached), "masked groups are exact zeros"
    assert keep_nonzero(layer)[""] == pytest.approx(1 - reached)
    again = pruner.prune(0.6)[""]
    assert again == pytest.approx(0.6, abs=0.02)
    assert not bool((pruner.masks[""] & ~torch.from_numpy(mask)).any())


def test_spatial_pruning_trains_resumes_and_converts() -> None:
    net = small_net()
    pruner = SpatialPruner(net, 2, spare=["0"])
    assert set(pruner.layers) == {"2"}
    pruner.prune(0.5)
    trained(net)
    assert bool((net[2].weight[~pruner.masks["2"]] != 0).any()), "plain training moves masked taps"
    pruner.apply()
    other = small_net()
    resumed = SpatialPruner(other, 2, spare=["0"])
    other.load_state_dict(net.state_dict())
    resumed.load_state_dict(pruner.state_dict())
    assert resumed.zeros() == pruner.zeros()
    wino = lrw.to_winograd(other, 2)
    density = keep_nonzero(wino)
    assert density["0"] == 1
    assert density["2"] == pytest.approx(1 - pruner.zeros()["2"])
    pruned = prune_weights(wino, 0.7, measure="weighted_magnitude", spare=["0"])
    assert pruned["2"] == pytest.approx(0.3, abs=0.01)
    with pytest.raises(ValueError, match="share"):
        pruner.prune(1.5)
    with pytest.raises(ValueError, match="state: masks of layers"):
        pruner.load_state_dict({})
    with pytest.raises(ValueError, match="spare: names 'x'"):
        SpatialPruner(net, 2, spare=["x"])


def test_pruning_to_the_same_share_again_changes_nothing() -> None:
    net = lrw.to_winograd(small_net(), 2)
    first = prune_weights(net, 1 / 3)
    assert prune_weights(net, 1 / 3) == first


def test_layers_are_never_emptied_and_never_half_of_them_changed() -> None:
    net = lrw.to_winograd(small_net(), 2)
    pruner = NativePruner(net, threshold=1e6)
    net(X).sum().backward()
    assert pruner.step() == {"0": 0.0, "2": 0.0}
    before = weight_density(net)
    for finish in (pruner.finish, lambda: keep_nonzero(net)):
        with pytest.raises(ValueError, match="'0' would keep no weight"):
            finish()
    assert weight_density(net) == before
    spatial = SpatialPruner(small_net(), 2)
    with pytest.raises(ValueError, match=r"would leave '\d' without a single tap"):
        spatial.prune(0.999)
    assert set(spatial.zeros().values()) == {0.0}


def test_methods_that_need_the_weights_refuse_frozen_ones() -> None:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), 2)
    with pytest.raises(ValueError, match="weights of '0' are frozen"):
        NativePruner(net)
    with pytest.raises(ValueError, match="trains no WinogradConv3d weights"):
        scale_gradients(net)


def test_native_shares_count_masks_too() -> None:
    net = lrw.to_winograd(small_net(), 2)
    net[0].keep(range(20))
    pruner = NativePruner(net, threshold=1e-12)
    net(X).sum().backward()
    assert pruner.step()["0"] == 20 / 64
