"""Conversion to Winograd layers: the same function, and a report of what was left and why."""

import copy
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MethodType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrw
from lrw.layers import copied, evaluating, named_layers
from lrw.nn import WinogradConv3d
from lrw.ops import winograd_conv3d
from lrw.pruning import SpatialPruner
from lrw_kernels.winograd import Tile, spatial_error
from verify.unit.lrw.small_nets import SubclassedConv3d, X, small_net


@pytest.mark.parametrize("tile", [2, 4, (1, 2, 3)])
def test_conversion_computes_the_same_function(tile: int | tuple[int, int, int]) -> None:
    net = small_net()
    converted = lrw.to_winograd(net, tile, filter=lambda name, conv: conv.kernel_size == (3, 3, 3))
    expected = net(X).detach()
    layers = named_layers(converted, WinogradConv3d).values()
    bound = max(spatial_error(layer.geometry.tile, layer.in_channels, 2**-23) for layer in layers)
    torch.testing.assert_close(converted(X), expected, rtol=0, atol=10 * bound * float(expected.abs().max()))
    assert isinstance(net[0], SubclassedConv3d), "the given network was changed"


def test_report_names_what_was_skipped_and_why() -> None:
    report = lrw.to_winograd(small_net(), 2).report
    assert list(report.converted) == ["0", "2"]
    assert "stride" in report.skipped["5"]
    assert "kernel_size 1" in report.skipped["6"]
    assert "5: left as it is" in str(report)


def test_a_plain_2d_axis_gets_one_output() -> None:
    assert lrw.to_winograd(small_net(), 4)[2].geometry.tile.outputs == (1, 4, 4)


def test_shared_modules_stay_shared() -> None:
    conv = nn.Conv3d(2, 2, 3, padding=1)
    net = lrw.to_winograd(nn.ModuleDict({"a": conv, "b": conv}), 2)
    assert net["a"] is net["b"]


class Causal(nn.Conv3d):
    """Pads on one side only: no plain convolution."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(input, (0, 0, 0, 0, 2, 0)))


def test_layers_that_compute_something_of_their_own_are_left() -> None:
    hooked = nn.Conv3d(2, 2, 3)
    hooked.register_forward_hook(lambda *_: None)
    normed = nn.utils.parametrizations.weight_norm(nn.Conv3d(2, 2, 3))
    net = nn.Sequential(nn.Conv3d(2, 2, 3), Causal(2, 2, 3), hooked, normed)
    report = lrw.to_winograd(net).report
    assert list(report.converted) == ["0"]
    assert "Causal computes something of its own" in report.skipped["1"]
    assert "hooks" in report.skipped["2"]
    assert list(report.skipped) == ["1", "2", "3"]


def test_frozen_tensors_stay_frozen() -> None:
    conv = nn.Conv3d(2, 2, 3)
    conv.weight.requires_grad_(False)
    layer = WinogradConv3d.from_conv3d(conv)
    assert not layer.weight.requires_grad
    assert layer.bias is not None
    assert layer.bias.requires_grad


def test_tiles_too_inaccurate_for_the_layer_are_skipped() -> None:
    net = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 7))
    report = lrw.to_winograd(net, 8, rtol=0.05).report
    assert list(report.converted) == ["0"]
    assert "error bound" in report.skipped["1"]


def test_evaluating_puts_every_modules_own_mode_back() -> None:
    net = small_net().train()
    net[3].eval()
    modes = [module.training for module in net.modules()]

    def fail_inside() -> None:
        with evaluating(net) as same:
            assert same is net
            assert not any(module.training for module in net.modules())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert [module.training for module in net.modules()] == modes


@pytest.mark.parametrize("tile", [2, 4])
def test_spatial_weights_come_back_from_layers_that_are_convolutions(tile: int) -> None:
    net = small_net()
    back = lrw.to_spatial(lrw.to_winograd(net, tile))
    assert type(back[0]) is nn.Conv3d
    torch.testing.assert_close(back[0].weight, net[0].weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(back(X), net(X), rtol=1e-4, atol=1e-5)
    assert all(missing < 1e-6 for missing in back.report.values())


def test_spatial_weights_of_pruned_layers_are_nearest_and_say_how_far() -> None:
    torch.manual_seed(0)
    layer = lrw.WinogradConv3d(8, 8, padding=0, tile=2)
    layer.keep(range(0, 64, 2))
    conv = lrw.to_spatial(layer)
    x = torch.randn(1, 8, 34, 34, 34)
    with torch.no_grad():
        y, near = layer(x), conv(x)
        measured = float((near - y).norm() / (y - layer.bias.view(1, -1, 1, 1, 1)).norm())
        assert conv.report[""] == pytest.approx(measured, rel=0.01)
        for step in (0.01, -0.01):  # any other filter is further away
            other = copy.deepcopy(conv)
            other.weight += step * torch.randn_like(other.weight)
            assert float((other(x) - y).norm()) > float((near - y).norm())
    with pytest.raises(ValueError, match="Winograd-ReLU"):
        lrw.to_spatial(lrw.WinogradConv3d(2, 2, rectified=True))


def by_closure(conv: nn.Conv3d, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *args: 2 * inner(*args)


def by_method(conv: nn.Conv3d, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return MethodType(lambda self, *args: 2 * inner(*args), conv)


def by_partial(conv: nn.Conv3d, inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """As accelerate hooks a module."""

    def forward(self: nn.Conv3d, *args: Tensor, factor: float) -> Tensor:
        assert self.weight is inner.__self__.weight  # type: ignore[attr-defined]
        return factor * inner(*args)

    return partial(forward, conv, factor=2)


@pytest.mark.parametrize("wrap", [by_closure, by_method, by_partial])
@pytest.mark.parametrize("method", ["forward", "_conv_forward"])
def test_methods_set_on_an_instance_are_kept_and_call_the_copy(method: str, wrap: Callable[..., object]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 2, 3), nn.Conv3d(2, 2, 3))
    setattr(net[0], method, wrap(net[0], getattr(net[0], method)))
    converted = lrw.to_winograd(net)
    assert list(converted.report.converted) == ["1"]
    assert f"it has a {method} of its own" in converted.report.skipped["0"]
    torch.testing.assert_close(converted(X), net(X))
    converted(X).sum().backward()
    assert converted[0].weight.grad is not None
    assert net[0].weight.grad is None, "the copy's method called the original"
    with torch.no_grad():
        converted[0].weight.zero_(), converted[0].bias.zero_()
    assert not bool(converted[0](X).any())


def test_copies_leave_closures_of_any_kind_to_themselves() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    inner = net.forward

    def forward(x: Tensor, again: object = net[1], deep: int = 1) -> Tensor:
        return forward(again(inner(x)), deep=0) if deep else net[0](x)  # type: ignore[operator]

    net.forward = forward  # type: ignore[method-assign]
    x, copy_ = torch.ones(1, 2), copied(net)
    assert torch.equal(copy_(x), net(x))
    copy_(x).sum().backward()
    assert all(p.grad is not None for p in copy_.parameters())
    assert all(p.grad is None for p in net.parameters())


def test_what_cannot_be_copied_is_refused_in_our_words() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3))
    net.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"net: cannot be copied .*; accepted is one that copy\.deepcopy takes"):
        lrw.to_winograd(net)
    assert list(lrw.to_winograd(net, inplace=True).report.converted) == ["0"]


def sharing(what: str) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(2, 2, 3, padding=1), nn.Conv3d(2, 2, 3, padding=1), nn.Conv3d(2, 2, 3))
    if what == "memory":
        net[1].weight = nn.Parameter(net[0].weight.data)
    elif what == "another kind of layer":
        net[1] = nn.ConvTranspose3d(2, 2, 3, padding=1)
        net[1].weight = net[0].weight
    else:
        setattr(net[1], what, getattr(net[0], what))
    return net


@pytest.mark.parametrize("what", ["weight", "bias", "memory", "another kind of layer"])
@pytest.mark.parametrize("inplace", [False, True])
def test_layers_that_share_a_parameter_stay_together(what: str, inplace: bool) -> None:
    net = sharing(what)
    x = torch.randn(1, 2, 5, 5, 5)
    expected = net(x).detach()
    converted = lrw.to_winograd(net, inplace=inplace)
    assert list(converted.report.converted) == ["2"]
    key = "bias" if what == "bias" else "weight"
    assert f"its {key} is '1.{key}' too" in converted.report.skipped["0"]
    if what != "memory" or inplace:  # deepcopy itself gives each Parameter memory of its own
        assert getattr(converted[0], key).data_ptr() == getattr(converted[1], key).data_ptr()
    torch.testing.assert_close(converted(x).detach(), expected)
    with pytest.raises(ValueError, match=f"no layer to convert .0: its {key} is '1.{key}' too"):
        lrw.to_winograd(sharing(what)[:2])


def cut_by_hand() -> nn.Sequential:
    """Filters, and taps, gone from the tensors alone: what the attributes say is out of date."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 4, 3, padding=(0, 1, 1)))
    keep = torch.arange(0, 16, 2)
    net[0].weight, net[0].bias = nn.Parameter(net[0].weight.data[keep]), nn.Parameter(net[0].bias.data[keep])
    net[2].weight = nn.Parameter(net[2].weight.data[:, keep, 1:2])
    return net


def test_filters_cut_by_hand_are_taken_as_the_tensors_are(tmp_path: Path) -> None:
    net, x = cut_by_hand(), torch.randn(1, 1, 6, 7, 8)
    expected = net(x).detach()
    converted = lrw.to_winograd(net)
    assert [(converted[i].in_channels, converted[i].out_channels) for i in (0, 2)] == [(1, 8), (8, 4)]
    assert converted[2].geometry.tile.kernel_size == (1, 3, 3)
    for same in (
        converted,
        lrw.compress(converted),
        lrw.to_spatial(converted),
        lrw.load(lrw.save(converted, tmp_path / "a"), net),
        lrw.load(lrw.save(lrw.compress(converted), tmp_path / "b"), net),
    ):
        torch.testing.assert_close(same(x), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"skeleton: layer '0' has channels \(1, 16\), .* has \(1, 8\)"):
        lrw.load(tmp_path / "a", nn.Sequential(nn.Conv3d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 4, 3)))
    with pytest.raises(ValueError, match=r"conv: its weight has shape \[8, 1, 3, 3, 3\], its attributes say \[16, 1"):
        WinogradConv3d.from_conv3d(net[0])
    pruner = SpatialPruner(net)
    assert pruner.prune(0.3) == pytest.approx({"0": 0.3, "2": 0.3}, abs=0.05)
    assert int((net[0].weight == 0).sum()) == int((~pruner.masks["0"]).sum()) > 0


def without_weight(conv: nn.Conv3d) -> None:
    del conv.weight
    conv.register_buffer("weight", torch.ones(2, 2, 3, 3, 3))


UNFIT: dict[str, Callable[[nn.Conv3d], object]] = {
    "its bias has shape [3], there are 2 output channels": lambda conv: setattr(
        conv, "bias", nn.Parameter(torch.ones(3))
    ),
    "its weight: shape (2, 2, 3, 3); accepted is": lambda conv: setattr(
        conv, "weight", nn.Parameter(conv.weight.data[..., 0])
    ),
    "its weight: dtype torch.int8": lambda conv: setattr(
        conv, "weight", nn.Parameter(conv.weight.data.to(torch.int8), requires_grad=False)
    ),
    "its weight is a NoneType; accepted is a Parameter": without_weight,
    "its weight has hooks": lambda conv: conv.weight.register_hook(lambda g: g * 0),
    "it has hooks": lambda conv: conv.register_full_backward_hook(lambda *_: None),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_convolutions_that_cannot_be_followed_are_left_with_the_reason(reason: str) -> None:
    net = nn.Sequential(nn.Conv3d(2, 2, 3), nn.Conv3d(2, 2, 3))
    UNFIT[reason](net[0])
    report = lrw.to_winograd(net, inplace=True).report
    assert list(report.converted) == ["1"]
    assert reason in report.skipped["0"]


def test_lazy_layers_are_refused_in_our_words() -> None:
    with pytest.raises(ValueError, match=r"0\.weight: has no size yet"):
        lrw.to_winograd(nn.Sequential(nn.LazyConv3d(2, 3)))


@pytest.mark.parametrize("tile", [2, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_bound_holds_for_u_rounded_to_half_precision(dtype: torch.dtype, tile: int) -> None:
    eps = float(torch.finfo(dtype).eps)
    for seed, channels in ((0, 4), (1, 32)):
        torch.manual_seed(seed)
        conv = nn.Conv3d(channels, 8, 3, padding=1, dtype=dtype)
        x = torch.randn(1, channels, 12, 12, 12, dtype=dtype)
        exact = F.conv3d(x.double(), conv.weight.double(), conv.bias.double(), padding=1)

        def error(y: Tensor, exact: Tensor = exact) -> float:
            return float((y.double() - exact).detach().abs().max() / exact.detach().abs().max())

        rounded = lrw.to_winograd(conv, tile, rtol=1, backend="torch").double()
        bound = spatial_error(Tile.of(tile), channels, 2**-23, eps)
        assert 1 < bound / error(rounded(x.double())) < 5  # of U alone; 1.8 to 3.6 in a few dozen draws
        # Spatial weights stay what they are: U is formed of them in float32.
        assert error(winograd_conv3d(x, conv.weight, conv.bias, padding=1, tile=tile)) < 1.1 * eps / 2
        assert error(winograd_conv3d(x, conv.weight, conv.bias, padding=1)) < 1.1 * eps / 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_tiles_too_coarse_for_the_dtype_u_is_stored_in_are_skipped(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv3d(4, 4, 3, dtype=dtype))
    assert list(lrw.to_winograd(net, 2).report.converted) == ["0"]
    with pytest.raises(ValueError, match=r"has an error bound of 0\.0(91|11); accepted is up to rtol = 0\.01"):
        lrw.to_winograd(net, 4)
    assert list(lrw.to_winograd(net.float(), 4).report.converted) == ["0"]


@pytest.mark.parametrize(
    "replace",
    [lambda net: lrw.add_low_rank(net, 2), lrw.compress, lrw.to_spatial],
    ids=["low rank", "compress", "spatial"],
)
@pytest.mark.parametrize("how", ["tied", "overlapping"])
def test_winograd_layers_that_share_a_parameter_are_not_taken_apart(
    replace: Callable[[nn.Module], nn.Module], how: str
) -> None:
    net = lrw.to_winograd(nn.Sequential(nn.Conv3d(4, 4, 3), nn.Conv3d(4, 4, 3), nn.Conv3d(4, 4, 3)))
    if how == "tied":
        net[1].weight = net[0].weight
    else:
        flat = torch.randn(2 * net[0].weight.numel())
        net[0].weight.data = flat[: net[0].weight.numel()].view_as(net[0].weight)
        net[1].weight.data = flat[100 : 100 + net[1].weight.numel()].view_as(net[1].weight)
    with pytest.raises(ValueError, match=r"net: the layer '[01]' cannot be replaced: its weight is '[01].weight' too"):
        replace(net)
