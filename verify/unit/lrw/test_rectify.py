"""Winograd-ReLU layers against the formula written out, and as citizens of networks, files and counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import lrw
from lrw.nn import MovedReLU, WinogradConv3d
from lrw_kernels.winograd import Tile, direct_cost, winograd_cost


def by_hand(x: NDArray[np.float64], u: NDArray[np.float64], tile: Tile) -> NDArray[np.float64]:
    """A^T [U . max(B^T x B, 0)] A of x [Cin, D, H, W] with padding 1, tile by tile."""
    (a_d, a_h, a_w), (b_d, b_h, b_w) = ([axis.array(name) for axis in tile.axes] for name in ("A", "B"))
    m, sizes = tile.outputs, x.shape[1:]
    y = np.zeros((u.shape[2], *(n + k for n, k in zip(sizes, m, strict=True))))
    padded = np.pad(x, [(0, 0)] + [(1, t) for t in tile.inputs])
    for d in range(0, sizes[0], m[0]):
        for h in range(0, sizes[1], m[1]):
            for w in range(0, sizes[2], m[2]):
                patch = padded[:, d : d + tile.inputs[0], h : h + tile.inputs[1], w : w + tile.inputs[2]]
                v = np.maximum(np.einsum("pi,qj,rk,cijk->pqrc", b_d, b_h, b_w, patch), 0).reshape(len(u), -1)
                products = np.einsum("tc,tco->to", v, u).reshape(*tile.inputs, -1)
                values = np.einsum("pi,qj,rk,pqro->oijk", a_d, a_h, a_w, products)
                y[:, d : d + m[0], h : h + m[1], w : w + m[2]] = values
    return y[:, : sizes[0], : sizes[1], : sizes[2]]


@pytest.mark.parametrize("tile", [Tile.of(2), Tile.of((2, 3, 4))], ids=lambda tile: tile.name)
def test_the_layer_is_its_formula(tile: Tile) -> None:
    torch.manual_seed(0)
    layer = WinogradConv3d(3, 4, padding=1, tile=tile, rectified=True, dtype=torch.float64)
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(2, 3, 5, 6, 7, dtype=torch.float64)
    expected = np.stack([by_hand(sample, layer.weight.detach().numpy(), tile) for sample in x.numpy()])
    expected += layer.bias.detach().numpy()[:, None, None, None]
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    last = x.contiguous(memory_format=torch.channels_last_3d)
    assert layer(last).is_contiguous(memory_format=torch.channels_last_3d)
    half = layer.float()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.detach().float().numpy(), expected, rtol=0.05, atol=0.3)


def test_its_gradients_are_right() -> None:
    torch.manual_seed(0)
    layer = WinogradConv3d(2, 2, padding=1, tile=2, rectified=True, dtype=torch.float64)
    x = torch.randn(1, 2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, u: torch.func.functional_call(layer, {"weight": u}, (x,)),
                                    (x, layer.weight.detach().requires_grad_()))  # fmt: skip


def network() -> nn.Sequential:
    torch.manual_seed(0)
    convs = [nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 3, 3, padding=1)]
    return nn.Sequential(convs[0], nn.ReLU(), nn.MaxPool3d(2), convs[1], nn.ReLU(), convs[2])


def test_relus_move_into_the_domain_and_stay_there(tmp_path: object) -> None:
    x = torch.randn(1, 2, 8, 8, 8)
    net = lrw.rectify(lrw.to_winograd(network(), 2), {"3": "1", "5": "4"})
    assert [type(net[i]) for i in (1, 4)] == [MovedReLU, MovedReLU]
    assert "Winograd-ReLU" in repr(net[3])
    expected = net(x)
    skeleton = network()
    assert torch.equal(lrw.load(lrw.save(net, f"{tmp_path}/net.safetensors"), skeleton)(x), expected)
    torch.testing.assert_close(lrw.compress(net)(x), expected)
    low = lrw.add_low_rank(net, 3)
    torch.testing.assert_close(low(x), expected)
    other = network()
    other[1] = nn.Tanh()
    with pytest.raises(ValueError, match=r"skeleton: '1' is no nn\.ReLU"):
        lrw.load(f"{tmp_path}/net.safetensors", other)
    net[5].keep(range(5, 30))
    cut = net(x)
    assert not torch.allclose(cut, expected)
    torch.testing.assert_close(lrw.load(lrw.save(lrw.compress(net), f"{tmp_path}/c.safetensors"), skeleton)(x), cut)


def test_densities_are_shares_of_what_is_multiplied() -> None:
    x = torch.randn(1, 2, 8, 8, 8)
    plain = network()
    spatial = lrw.activation_density(plain, x)
    assert spatial["0"] == 1
    assert spatial["5"] == pytest.approx(float((plain[:5](x) != 0).double().mean()))
    net = lrw.to_winograd(plain, 2)
    assert lrw.activation_density(net, x)["3"] > 0.9, "transformed, sparse activations are dense again"
    rectified = lrw.activation_density(lrw.rectify(net, {"3": "1", "5": "4"}), x)
    assert 0.2 < rectified["3"] < 0.7
    assert set(rectified) == {"0", "3", "5"}


def test_what_cannot_be_rectified_is_refused(tmp_path: Path) -> None:
    net = lrw.to_winograd(network(), 2)
    before = net(x := torch.randn(1, 2, 8, 8, 8))
    for relus, words in (({"3": "2"}, "'2' is no nn.ReLU"), ({"2": "1"}, "'2' is no Winograd layer")):
        with pytest.raises(ValueError, match=words):
            lrw.rectify(net, {"5": "4", **relus})
    assert torch.equal(net(x), before)
    layer = WinogradConv3d(2, 3, rectified=True, backend="cpu")
    with pytest.raises(ValueError, match="backend: 'cpu' computes no Winograd-ReLU"):
        layer(x)
    with pytest.raises(ValueError, match="'1' is a Winograd-ReLU layer"):
        lrw.export(nn.Sequential(nn.ReLU(), layer), torch.randn(1, 2, 8, 8, 8), tmp_path)
    assert not list(tmp_path.iterdir())


def test_multiplies_of_vgg_nagadomi_are_those_of_the_paper() -> None:
    """Liu et al.'s table, from layer shapes and the densities they publish, fully connected layers dense.

    2.3e8 multiplies originally, 1.1e8 in the Winograd domain, 2.3e7 there with 40 % of the weights and 41.1 % of the
    activations left in all but the first layer. Their 5.0e7 for a pruned network (60 %, 36.9 %) is what the seven
    pruned convolutions take; with the rest it would be 5.7e7.
    """
    shapes = [(3, 64, 32), (64, 64, 32), (64, 128, 16), (128, 128, 16), (128, 256, 8)] + 3 * [(256, 256, 8)]
    dense = 4096 * 1024 + 1024 * 1024 + 1024 * 10
    tile = Tile.of((1, 2, 2), (1, 3, 3))

    def products(cin: int, cout: int, n: int, density: float = 1.0) -> int:
        return winograd_cost(tile, cin, cout, (1, n, n), density=density).products

    direct = [direct_cost((1, 3, 3), cin, cout, (1, n, n)).multiplies for cin, cout, n in shapes]
    first, rest = products(*shapes[0]), shapes[1:]
    assert f"{sum(direct) + dense:.1e}" == "2.3e+08"
    assert f"{first + sum(products(*shape) for shape in rest) + dense:.1e}" == "1.1e+08"
    assert f"{sum(direct[1:]) * 0.6 * 0.369:.1e}" == "5.0e+07"
    assert f"{first + sum(products(*shape, 0.4 * 0.411) for shape in rest) + dense:.1e}" == "2.3e+07"
