"""Compression: equal to the masked network, and as small as its report counts."""

import pytest
import torch
from torch import nn

import lrw
from lrw.layers import named_layers
from lrw.nn import CompressedConv3d, GroupedConv3d
from lrw.pruning import Granularity
from lrw_kernels.winograd import Tile, domain_error, winograd_cost
from verify.unit.lrw.small_nets import X, pruned_net


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


def grouped_net() -> tuple[nn.Sequential, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 48, 3, padding=1), nn.ReLU(), nn.Conv3d(48, 40, 3, padding=1))
    return net, torch.randn(2, 3, 6, 7, 8)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_blocks_of_output_channels_are_stored_and_computed_one_by_one(backend: str, tmp_path: object) -> None:
    plain, x = grouped_net()
    net = lrw.add_low_rank(lrw.to_winograd(plain, 2, backend=backend), 3)
    pruner = lrw.ColumnPruner(net, 0.7, granularity=Granularity(None, 16))
    net(x).square().mean().backward()
    pruner.observe()
    pruner.prune()
    expected = net(x)
    small = lrw.compress(net, x)
    assert all(isinstance(small[i], GroupedConv3d) for i in (0, 2))
    assert [channels for channels, _ in small[2].blocks] == [16, 16, 8]
    torch.testing.assert_close(small(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small[0].weights(), net[0].weights())
    stored = sum(p.numel() for p in small[0].weight)
    assert small.report.layers[0].stored == stored < 0.45 * 64 * 3 * 48
    assert small.report.layers[0].multiplies < lrw.compress(lrw.to_winograd(plain, 2), x).report.layers[0].multiplies
    loaded = lrw.load(lrw.save(small, f"{tmp_path}/net.safetensors"), plain)
    assert loaded[0].blocks == small[0].blocks
    torch.testing.assert_close(loaded(x), small(x), rtol=1e-4, atol=1e-5)
    assert lrw.compress(small)[0].blocks == small[0].blocks
    loaded(x).sum().backward()
    assert all(p.grad is not None for p in loaded[0].weight)
    torch.testing.assert_close(lrw.to_spatial(small)[2].weight, lrw.to_spatial(net)[2].weight, rtol=1e-4, atol=1e-5)


def test_a_block_may_lose_all_of_its_columns() -> None:
    plain, x = grouped_net()
    net = lrw.to_winograd(plain, 2)
    mask = torch.ones(64, 1, 48, dtype=torch.bool)
    mask[:, :, 16:32] = False
    net[0].keep_weights(mask)
    small = lrw.compress(net, x)
    assert [len(kept) for _, kept in small[0].blocks] == [64, 0, 64]
    torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)
    first = small[0](x)[:, 16:32]
    torch.testing.assert_close(first, net[0].bias[16:32].view(1, -1, 1, 1, 1).expand_as(first))


def test_patterns_that_are_no_blocks_keep_whole_columns() -> None:
    plain, x = grouped_net()
    net = lrw.to_winograd(plain, 2)
    for mask in (torch.rand(64, 1, 48) < 0.5, torch.rand(64, 3, 1) < 0.5, torch.rand(64, 3, 48) < 0.5):
        net[0].keep_weights(mask)
        small = lrw.compress(net)
        assert isinstance(small[0], CompressedConv3d)
        torch.testing.assert_close(small(x), net(x), rtol=1e-4, atol=1e-5)


def test_loaded_networks_have_kernels_for_their_columns(tmp_path: object) -> None:
    plain, _ = grouped_net()
    net = lrw.to_winograd(plain, 2)
    net[0].keep(range(20))
    loaded = lrw.load(lrw.save(lrw.compress(net), f"{tmp_path}/net.safetensors"), plain)
    assert all(layer.geometry.fixed for layer in (loaded[0], loaded[2]))
