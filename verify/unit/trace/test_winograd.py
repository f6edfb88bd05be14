"""Winograd layers of every kind come out as one node each: tiles, kept columns and blocks as they are."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.geometry import Geometry
from lrw.ops import winograd_conv3d
from lrw.pruning.granularity import Granularity
from lrw.trace import trace
from lrw_kernels.network.operators import Pointwise, Winograd
from lrw_kernels.winograd import Tile
from verify.programs.interpreter import assert_same
from verify.unit.trace.nets import settled, volume

STACK = (1, 2, 6, 8, 8)


def stack() -> nn.Module:
    torch.manual_seed(2)
    return settled(nn.Sequential(
        nn.Conv3d(2, 32, 3, padding=1, bias=False), nn.BatchNorm3d(32), nn.ReLU(),
        nn.Conv3d(32, 48, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(48), nn.ReLU(), nn.Conv3d(48, 3, 3, padding=1),
    ))  # fmt: skip


def low_rank() -> nn.Module:
    net = lrw.add_low_rank(lrw.to_winograd(stack(), 2), rank=3)
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith("Gc"):
                p.normal_(0, 0.1)
    return net.eval()


def pruned(outputs: int | None, net: nn.Module) -> nn.Module:
    pruner = lrw.ColumnPruner(net, 0.6, granularity=Granularity(outputs=outputs))
    net(volume(*STACK)).square().mean().backward()
    pruner.observe()
    pruner.prune()
    return net


DOMAIN: dict[str, tuple[Callable[[], nn.Module], list[int]]] = {
    "Winograd layers": (lambda: lrw.to_winograd(stack(), (2, 3, 4), filter=lambda name, _: name != "3"), [1, 1, 1]),
    "low-rank": (low_rank, [1, 1, 1]),
    "pruned": (lambda: pruned(None, low_rank()), [1, 1, 1]),
    "pruned in blocks": (lambda: pruned(16, low_rank()), [1, 1, 1]),
    "compressed": (lambda: lrw.compress(pruned(None, low_rank())), [1, 1, 1]),
    "compressed in blocks": (lambda: lrw.compress(pruned(16, low_rank())), [2, 3, 1]),
}


@pytest.mark.parametrize("name", DOMAIN)
def test_winograd_layers_come_out_as_one_node_each_with_batch_norm_folded(name: str) -> None:
    build, blocks = DOMAIN[name]
    net, x = build(), volume(*STACK)
    network = trace(net, x, tile=2)
    assert [node.name for node in network.nodes] == ["0", "3", "6"]
    operators = [node.operator for node in network.nodes if isinstance(node.operator, Winograd)]
    assert [len(o.blocks) for o in operators] == blocks
    assert [o.after for o in operators] == [Pointwise("relu"), Pointwise("relu"), None]
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, lrw.nn.WinogradLayer)}
    for node, operator in zip(network.nodes, operators, strict=True):
        if node.name in layers:
            geometry = layers[node.name].geometry
            assert (operator.tile, operator.padding) == (geometry.tile, geometry.padding)
            assert {p for _, kept in operator.blocks for p in kept} == set(geometry.positions)
    assert_same(network, net, x)


def grouped(*blocks: tuple[int, tuple[int, ...]], bias: bool = True) -> lrw.GroupedConv3d:
    layer = lrw.GroupedConv3d(3, blocks, Geometry(Tile.of(2, origin=(0, 1, 0)), (1, 0, 2)), bias=bias)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(generator=generator)
    return layer


@pytest.mark.parametrize("bias", [True, False])
def test_a_block_without_columns_is_its_bias(bias: bool) -> None:
    net = nn.Sequential(grouped((2, (0, 5, 9)), (3, ()), (1, (5, 63)), bias=bias), nn.BatchNorm3d(6))
    x = volume(2, 3, 4, 5, 3)
    network = trace(settled(net), x)
    (node,) = network.nodes
    assert node.name == "0"
    assert node.operator.blocks == ((2, (0, 5, 9)), (3, ()), (1, (5, 63)))
    assert [u.shape for u in node.operator.weights] == [(3, 3, 2), (0, 3, 3), (2, 3, 1)]
    assert_same(network, net, x)


class Parallel(nn.Module):
    """Two Winograd layers on one input, side by side; of one of them something else is made, too, where asked for."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.a, self.b = (lrw.WinogradConv3d(2, 3, padding=1) for _ in range(2))
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        whole = torch.cat([a, b], dim=1)
        return whole + torch.cat([b, b], dim=1) if self.again else whole


@pytest.mark.parametrize(("again", "names"), [(False, ["a", "b", "cat"]), (True, ["a", "b", "cat", "cat@2", "add"])])
def test_layers_side_by_side_are_nodes_of_their_own(again: bool, names: list[str]) -> None:
    net, x = Parallel(again), volume(1, 2, 4, 4, 4)
    network = trace(net, x)
    assert [node.name for node in network.nodes] == names
    assert_same(network, net, x)


def test_a_layer_beside_itself_is_computed_once() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = lrw.WinogradConv3d(2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            return torch.cat([y, y], dim=1)

    net, x = Doubled(), volume(1, 2, 4, 4, 4)
    network = trace(net, x)
    assert [node.name for node in network.nodes] == ["layer", "cat"]
    assert_same(network, net, x)


def test_the_functions_of_lrw_are_traced_like_the_modules() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            y = winograd_conv3d(x, self.weight, padding=1, relu=True, backend="torch")
            return winograd_conv3d(x, self.weight, padding=1, residual=y, tile=2, backend="torch")

    net, x = Functional(), volume(1, 2, 5, 5, 5)
    network = trace(net, x)
    assert [(node.operator.after, len(node.inputs)) for node in network.nodes] == [(Pointwise("relu"), 1), (None, 2)]
    assert_same(network, net, x)
