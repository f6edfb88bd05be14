"""Conversion to Winograd layers: the same function, and a report of what was left and why."""

import copy

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.layers import evaluating, named_layers
from lrw.nn import WinogradConv3d
from lrw_kernels.winograd import spatial_error
from verify.unit.small_nets import SubclassedConv3d, X, small_net


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
