"""Layers whose weights torch.nn.utils.prune, weight_norm or a parametrization compute from others: named, kept, and
right once they are parameters again."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import lrw
from lrw.pruning import NativePruner, SpatialPruner, keep_nonzero, prune_weights
from lrw.trace import trace
from verify.programs.interpreter import computed
from verify.unit.lrw.small_nets import X, small_net


def pruned(layer: nn.Module) -> Callable[[], object]:
    prune.l1_unstructured(layer, "weight", 0.5)
    return lambda: prune.remove(layer, "weight")


def normed(layer: nn.Module) -> Callable[[], object]:
    nn.utils.parametrizations.weight_norm(layer)
    return lambda: parametrize.remove_parametrizations(layer, "weight")


def normed_by_a_hook(layer: nn.Module) -> Callable[[], object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(layer)
    return lambda: nn.utils.remove_weight_norm(layer)


def dropped(layer: nn.Module) -> Callable[[], object]:
    """Weight drop, as language models have it."""
    layer.raw = layer.weight
    del layer.weight
    handle = layer.register_forward_pre_hook(lambda m, _: setattr(m, "weight", m.raw * 0.75))

    def undo() -> None:
        handle.remove()
        raw = layer.raw.detach()
        del layer.weight, layer.raw
        layer.weight = nn.Parameter(raw * 0.75)

    layer(torch.zeros(1, layer.in_channels, 6, 6, 6))
    return undo


WAYS = [pruned, normed, normed_by_a_hook, dropped]


def assert_equal(given: dict[str, Tensor], before: dict[str, Tensor]) -> None:
    assert list(given) == list(before)
    assert all(torch.equal(given[name], before[name]) for name in before)


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_convolutions_whose_weight_is_computed_are_left_as_they_are(
    way: Callable[..., object], inplace: bool, tmp_path: Path
) -> None:
    net = small_net()
    way(net[0])
    expected = net(X).detach()  # from here on the weight is no leaf, which deepcopy refuses
    converted = lrw.to_winograd(net, inplace=inplace)
    assert list(converted.report.converted) == ["2"]
    assert "its weight is computed from other tensors; prune.remove, " in converted.report.skipped["0"]
    torch.testing.assert_close(converted(X).detach(), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        for parameter in converted[0].parameters():
            parameter.mul_(1.5)
    assert not torch.allclose(converted(X), expected), "the copy's weight does not follow its own parameters"
    if not inplace:
        torch.testing.assert_close(net(X).detach(), expected, rtol=0, atol=0)
        again = lrw.load(lrw.save(converted, tmp_path / "net"), net)
        torch.testing.assert_close(again(X), converted(X))
        assert list(SpatialPruner(net).layers) == ["2"]
    small = lrw.compress(converted)
    torch.testing.assert_close(small(X), converted(X), rtol=1e-4, atol=1e-5)


OPERATIONS: dict[str, Callable[[nn.Module, Path], object]] = {
    "save": lambda net, tmp: lrw.save(net, tmp / "net"),
    "add_low_rank": lambda net, tmp: lrw.add_low_rank(net, 2),
    "merge_low_rank": lambda net, tmp: lrw.merge_low_rank(net),
    "compress": lambda net, tmp: lrw.compress(net),
    "compress in place": lambda net, tmp: lrw.compress(net, inplace=True),
    "to_spatial": lambda net, tmp: lrw.to_spatial(net),
    "to_spatial in place": lambda net, tmp: lrw.to_spatial(net, inplace=True),
    "ColumnPruner": lambda net, tmp: lrw.ColumnPruner(net),
    "NativePruner": lambda net, tmp: NativePruner(net),
    "prune_weights": lambda net, tmp: prune_weights(net, 0.5),
    "keep_nonzero": lambda net, tmp: keep_nonzero(net),
}


def winograd_net(operation: str) -> nn.Module:
    net = lrw.to_winograd(small_net())
    return lrw.add_low_rank(net, 2) if operation == "merge_low_rank" else net


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("way", WAYS)
def test_winograd_layers_whose_weight_is_computed_are_refused_by_name(
    way: Callable[..., Callable[[], object]], operation: str, tmp_path: Path
) -> None:
    net = winograd_net(operation)
    undo = way(net[0])
    expected = net(X).detach()
    before, kinds = {k: t.clone() for k, t in net.state_dict().items()}, [type(layer) for layer in net]
    with pytest.raises(ValueError, match="net: the layer '0' cannot be taken as it is: its weight is computed from "):
        OPERATIONS[operation](net, tmp_path)
    assert_equal(net.state_dict(), before)
    assert [type(layer) for layer in net] == kinds
    assert all(layer.observer is None for layer in (net[0], net[2]))
    assert list(tmp_path.iterdir()) == []
    torch.testing.assert_close(net(X).detach(), expected, rtol=0, atol=0)
    undo()
    torch.testing.assert_close(net(X).detach(), expected)
    result = OPERATIONS[operation](net, tmp_path)
    if operation in ("add_low_rank", "merge_low_rank", "compress"):
        torch.testing.assert_close(result(X).detach(), expected, rtol=1e-4, atol=1e-5)  # type: ignore[operator]
    if operation == "save":
        torch.testing.assert_close(lrw.load(tmp_path / "net", small_net(3))(X).detach(), expected)


@pytest.mark.parametrize("way", WAYS)
def test_export_and_rectify_see_the_weight_as_it_is_computed(way: Callable[..., object]) -> None:
    for net in (small_net()[:5], lrw.to_winograd(small_net()[:5])):
        way(net[0])
        net(X)
        with torch.no_grad():
            for parameter in net[0].parameters():
                parameter.mul_(1.5)  # what was computed for the last pass is out of date
        exported = computed(trace(net, X), X)
        torch.testing.assert_close(exported.float(), net(X).detach(), rtol=1e-4, atol=1e-5)
    plain = lrw.rectify(lrw.to_winograd(small_net()), {"2": "1"})
    undo = way(plain[2])
    undone = plain(X).detach()
    undo()  # type: ignore[operator]
    torch.testing.assert_close(plain(X).detach(), undone)
    net = lrw.to_winograd(small_net())
    way(net[2])
    torch.testing.assert_close(lrw.rectify(net, {"2": "1"})(X).detach(), undone)


def test_blocks_of_a_grouped_layer_are_looked_at_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = lrw.to_winograd(nn.Sequential(nn.Conv3d(2, 32, 3)))
    mask = torch.ones(64, 1, 32, dtype=torch.bool)
    mask[:9, :, :16] = False
    net[0].keep_weights(mask)
    net = lrw.compress(net)
    prune.l1_unstructured(net[0].weight, "1", 0.5)
    with pytest.raises(ValueError, match="the layer '0' cannot be taken as it is: its 1 is computed"):
        lrw.save(net, tmp_path / "net")


REPLACING = ["add_low_rank", "merge_low_rank", "compress", "to_spatial"]


@pytest.mark.parametrize("operation", REPLACING)
def test_what_new_layers_would_lose_is_refused_by_name(operation: str, tmp_path: Path) -> None:
    net = winograd_net(operation)
    handle = net[2].register_forward_hook(lambda module, args, y: 2 * y)
    with pytest.raises(ValueError, match="net: the layer '2' cannot be replaced: it has hooks, which"):
        OPERATIONS[operation](net, tmp_path)
    handle.remove()
    inner = net[2].forward
    net[2].forward = lambda x: 2 * inner(x)
    with pytest.raises(ValueError, match="net: the layer '2' cannot be replaced: it has a forward of its own"):
        OPERATIONS[operation](net, tmp_path)
    del net[2].forward
    assert OPERATIONS[operation](net, tmp_path) is not None


@pytest.mark.parametrize("operation", ["save", *REPLACING])
def test_winograd_layers_cut_by_hand_are_refused_until_their_channels_say_so(operation: str, tmp_path: Path) -> None:
    net = winograd_net(operation)
    for name in ("weight", "Gr") if operation == "merge_low_rank" else ("weight",):
        setattr(net[0], name, nn.Parameter(getattr(net[0], name).data[:, :, :2]))
    with pytest.raises(ValueError, match=r"'0' .* its weight has shape \[64, 1, 2\], its attributes say \[64, 1, 4\]"):
        OPERATIONS[operation](net, tmp_path)
    net[0].out_channels = 2
    with pytest.raises(ValueError, match=r"its bias has shape \[4\], there are 2 output channels"):
        OPERATIONS[operation](net, tmp_path)
    net[0].bias = nn.Parameter(net[0].bias.data[:2])
    assert OPERATIONS[operation](net, tmp_path) is not None
