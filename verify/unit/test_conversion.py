"""Conversion to Winograd layers: the same function, and a report of what was left and why."""

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
