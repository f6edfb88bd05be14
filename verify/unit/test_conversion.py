"""Conversion to Winograd layers: the same function, and a report of what was left and why."""

import pytest
import torch
from torch import nn

import lrw
from lrw.layers import named_layers
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
