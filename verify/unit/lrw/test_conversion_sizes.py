"""Which layers `to_winograd` takes, and with which tile, where it knows their sizes."""

import pytest
import torch
from torch import nn

import lrw


def pyramid() -> nn.Sequential:
    """One input channel, a layer that gains, one at volumes of 1x2x2."""
    torch.manual_seed(0)
    convs = (nn.Conv3d(inputs, 16, 3, padding=1) for inputs in (1, 16, 16))
    return nn.Sequential(next(convs), nn.ReLU(), next(convs), nn.MaxPool3d(8), next(convs))


@pytest.mark.parametrize(("tile", "chosen"), [(2, "F(2x2x2, 3x3x3)"), ("auto", "F(4x4x4, 3x3x3)")])
def test_layers_that_cannot_gain_are_left_out_where_sizes_are_known(tile: int | str, chosen: str) -> None:
    net, x = pyramid(), torch.randn(1, 1, 8, 16, 16)
    found = lrw.to_winograd(net, tile, example_input=x)
    reason = "by formulas a direct convolution of its size is no slower"
    assert found.report.converted == {"2": chosen}
    assert found.report.skipped == {"0": reason, "4": reason}
    torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-5)
    assert len(lrw.to_winograd(net, 2).report.converted) == 3  # sizes that nobody knows are not judged


def test_a_tile_is_chosen_for_large_volumes_where_no_size_is_known() -> None:
    assert lrw.to_winograd(pyramid(), "auto").report.converted == {"2": "F(4x4x4, 3x3x3)", "4": "F(4x4x4, 3x3x3)"}
    with pytest.raises(ValueError, match="tile: 'large'; accepted are outputs per axis and 'auto'"):
        lrw.to_winograd(pyramid(), "large")
    with pytest.raises(ValueError, match=r"net: no layer to convert .*a direct convolution of its size is no slower"):
        lrw.to_winograd(nn.Sequential(nn.Conv3d(1, 2, 3)), "auto")
