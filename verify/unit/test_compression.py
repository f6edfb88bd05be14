"""Compression: equal to the masked network, and as small as its report counts."""

import torch

import lrw
from lrw.layers import named_layers
from lrw.nn import CompressedConv3d
from lrw_kernels.winograd import Tile, domain_error, winograd_cost
from verify.unit.small_nets import X, pruned_net


def test_compressed_equals_masked_and_is_as_small_as_counted() -> None:
    net, _ = pruned_net()
    small = lrw.compress(net, X)
    assert all(isinstance(m, CompressedConv3d) for m in named_layers(small, lrw.nn.WinogradLayer).values())
    masked, compact = net[0](X), small[0](X)
    norms = small[0].weight.detach().norm(dim=1).amax(dim=1).numpy()
    tolerance = domain_error(Tile.of(2), small[0].geometry.kept, norms, float(X.abs().max()), 1, 2**-23)
    torch.testing.assert_close(compact, masked, rtol=0, atol=tolerance)
    first = small.report.layers[0]
    assert (first.kept, first.columns) == (16, 64)
    assert first.stored == 16 * 1 * 4 == small[0].weight.numel()
    expected = winograd_cost(Tile.of(2), 1, 4, (8, 9, 10), kept=small[0].geometry.positions).multiplies
    assert first.multiplies == expected
    assert "16 of 64 columns" in str(small.report)
