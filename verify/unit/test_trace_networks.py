"""Whole networks: what is traced computes what the network does, in as few nodes as it should; the network stays."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.export import trace
from lrw.geometry import Geometry
from lrw.nets import C3D, R3D18, UNet3D
from lrw.ops import winograd_conv3d
from lrw.pruning.granularity import Granularity
from lrw_kernels.aarch64.network import Affine, Direct, Network, Pointwise, Winograd
from lrw_kernels.winograd import Tile, cheapest_tile
from verify.tolerances import assert_close
from verify.unit.networks import assert_same, computed, double, rounding
from verify.unit.traced_nets import MedResNet18, group_norm_unet, instance_norm_unet, settled


def volume(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def kinds(network: Network) -> Counter[str]:
    return Counter(type(node.operator).__name__ for node in network.nodes)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "C3D": (lambda: C3D(1, 3, (8, 16, 16), 4), (2, 1, 8, 16, 16), {"Winograd": 6, "Direct": 5, "Pool": 4}),
    "C3D without norm": (
        lambda: C3D(2, 3, (5, 9, 12), 4, norm=False),
        (1, 2, 5, 9, 12),
        {"Winograd": 6, "Direct": 5, "Pool": 4},
    ),
    "R3D-18": (lambda: R3D18(1, 3, (8, 9, 9), 4), (1, 1, 8, 9, 9), {"Winograd": 11, "Direct": 10, "Pool": 1}),
    "R3D-18, large stem": (
        lambda: R3D18(2, 3, (3, 64, 64), 2),
        (1, 2, 3, 64, 64),
        {"Winograd": 13, "Direct": 8, "Pool": 1},
    ),
    "MedMNIST ResNet-18": (MedResNet18, (2, 1, 8, 8, 8), {"Winograd": 11, "Direct": 10, "Pool": 1}),
    "UNet3D": (
        lambda: UNet3D(1, 3, 4, 3),
        (1, 1, 8, 12, 4),
        {"Winograd": 10, "Direct": 1, "Pool": 2, "Resample": 2, "Concat": 2},
    ),
    "U-Net, instance norm": (
        instance_norm_unet,
        (1, 1, 8, 8, 12),
        {"Winograd": 6, "Direct": 3, "Transposed": 2, "Normalise": 8, "Pointwise": 8, "Concat": 2, "Softmax": 1},
    ),
    "U-Net, GELU": (
        lambda: group_norm_unet(nn.GELU),
        (2, 1, 8, 8, 8),
        {"Winograd": 6, "Direct": 5, "Resample": 2, "Normalise": 8, "Pointwise": 8, "Concat": 2, "Softmax": 1},
    ),
    "U-Net, SiLU": (
        lambda: group_norm_unet(lambda: nn.SiLU(inplace=True)),
        (1, 1, 8, 8, 8),
        {"Winograd": 6, "Direct": 5, "Resample": 2, "Normalise": 8, "Pointwise": 8, "Concat": 2, "Softmax": 1},
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_a_traced_network_computes_what_the_network_does_in_few_nodes(name: str) -> None:
    torch.manual_seed(1)
    build, shape, nodes = NETS[name]
    net, x = settled(build()), volume(*shape)
    network = trace(net, x)
    assert dict(kinds(network)) == nodes
    assert_same(network, net, x)


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
    assert [o.relu for o in operators] == [True, True, False]
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
    assert node.operator.blocks == ((2, (0, 5, 9)), (3, ()), (1, (5, 63)))
    assert [u.shape for u in node.operator.weights] == [(3, 3, 2), (0, 3, 3), (2, 3, 1)]
    assert_same(network, net, x)


class Parallel(nn.Module):
    """Two Winograd layers on one input, side by side; of one of them something else is made, too."""

    def __init__(self, again: bool) -> None:
        super().__init__()
        self.a, self.b = (lrw.WinogradConv3d(2, 3, padding=1) for _ in range(2))
        self.again = again

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        whole = torch.cat([a, b], dim=1)
        return whole + torch.cat([b, b], dim=1) if self.again else whole


@pytest.mark.parametrize(("again", "names"), [(False, ["cat"]), (True, ["a", "b", "cat", "cat@2", "add"])])
def test_layers_side_by_side_are_one_where_nobody_else_reads_them(again: bool, names: list[str]) -> None:
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
    assert [(node.operator.relu, len(node.inputs)) for node in network.nodes] == [(True, 1), (False, 2)]
    assert_same(network, net, x)


def test_a_residual_block_is_two_nodes_and_its_shortcut() -> None:
    torch.manual_seed(0)
    net = settled(R3D18(1, 3, (4, 8, 8), 4))
    network = trace(net, volume(1, 1, 4, 8, 8))
    nodes = {node.name: node for node in network.nodes}
    assert [name for name in nodes if name.startswith("layer1.0")] == ["layer1.0.conv1.0", "layer1.0.conv2.0"]
    assert nodes["layer1.0.conv2.0"].inputs == ("layer1.0.conv1.0", "stem.0")
    block = ["layer2.0.conv1.0", "layer2.0.conv2.0", "layer2.0.downsample.0"]
    assert [name for name in nodes if name.startswith("layer2.0")] == block
    assert nodes[block[2]].inputs == ("layer1.1.conv2.0", block[1])
    assert [nodes[name].operator.relu for name in block] == [True, False, True]


def test_the_tile_is_the_one_lrw_chooses_or_the_one_asked_for() -> None:
    net, x = nn.Conv3d(4, 8, 3), volume(1, 4, 12, 12, 12)
    chosen = cheapest_tile((3, 3, 3), 4, 8, (10, 10, 10))
    for given, tile in (("auto", chosen), (2, Tile.of(2)), ((1, 2, 4), Tile.of((1, 2, 4)))):
        (node,) = trace(net, x, tile=given).nodes
        assert node.operator.tile == tile


@pytest.mark.parametrize("how", [{"stride": 2}, {"dilation": 2}, {"groups": 2}, {"kernel_size": 1}, {"kernel_size": 9}])
def test_what_winograd_does_not_take_is_direct(how: dict[str, int]) -> None:
    net, x = nn.Conv3d(4, 6, **{"kernel_size": 3, "padding": 3, **how}), volume(1, 4, 7, 7, 7)
    network = trace(net, x, tile=2)
    assert isinstance(network.output.operator, Direct)
    assert_same(network, net, x)


def test_winograd_is_not_taken_where_it_saves_nothing() -> None:
    (node,) = trace(nn.Conv3d(16, 16, 3, padding=1), volume(1, 16, 1, 1, 1)).nodes
    assert isinstance(node.operator, Direct)


@pytest.mark.parametrize("name", ["MedMNIST ResNet-18", "U-Net, SiLU"])
def test_the_network_is_left_as_it_was(name: str) -> None:
    build, shape, _ = NETS[name]
    net = build()
    net.train()
    for i, module in enumerate(net.modules()):
        module.training = i % 3 > 0
    modes, numbers = [m.training for m in net.modules()], deepcopy(net.state_dict())
    fields = [sorted(vars(m)) for m in net.modules()]
    trace(net, volume(*shape))
    assert [m.training for m in net.modules()] == modes
    assert [sorted(vars(m)) for m in net.modules()] == fields
    assert all(torch.equal(t, numbers[key]) for key, t in net.state_dict().items())


def test_an_input_that_the_network_changes_is_left_as_it_was() -> None:
    net, x = nn.Sequential(nn.ReLU(inplace=True), nn.Conv3d(1, 2, 1)), volume(1, 1, 2, 2, 2)
    before = x.clone()
    network = trace(net, x)
    assert torch.equal(x, before)
    assert [type(node.operator) for node in network.nodes] == [Pointwise, Direct]
    assert_same(network, net, before)


def test_a_batch_norm_with_nothing_to_fold_into_stays() -> None:
    net, x = (
        settled(nn.Sequential(nn.BatchNorm3d(2), nn.ReLU(), nn.MaxPool3d(2), nn.BatchNorm3d(2))),
        volume(1, 2, 4, 4, 4),
    )
    network = trace(net, x)
    assert [(n.name, type(n.operator)) for n in network.nodes if isinstance(n.operator, Affine)] == [
        ("0", Affine),
        ("3", Affine),
    ]
    assert_same(network, net, x)


def test_an_identity_is_a_copy() -> None:
    network = trace(nn.Sequential(nn.Identity(), nn.Dropout()), volume(1, 2, 3, 3, 3))
    assert [(n.name, n.inputs, n.size) for n in network.nodes] == [("output", ("input",), (1, 3, 3, 3, 2))]


def test_modules_used_twice_and_called_input_keep_names_of_their_own() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = nn.Conv3d(2, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.input(self.input(x)).tanh()

    net, x = Twice(), volume(1, 2, 3, 3, 3)
    network = trace(net, x)
    assert [node.name for node in network.nodes] == ["input@2", "input@3", "tanh"]
    assert_same(network, net, x)


def test_what_is_traced_is_a_copy() -> None:
    net, x = nn.Conv3d(2, 3, 1), volume(1, 2, 3, 3, 3)
    network, exact = trace(net, x), double(net)(x.double())
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    y = computed(network, x)
    assert_close(y.numpy(), exact.numpy(), rounding(network, x, y), "the network as it was")


def test_parametrised_weights_are_computed_once() -> None:
    norms = nn.utils.parametrizations
    net = nn.Sequential(
        norms.weight_norm(nn.Conv3d(2, 3, 3)), norms.spectral_norm(nn.Conv3d(3, 3, 1)), nn.ReLU()
    ).eval()
    x = volume(1, 2, 5, 5, 5)
    network = trace(net, x)
    assert [node.name for node in network.nodes] == ["0", "1"]
    assert_same(network, net, x)


def test_vectors_go_in_and_come_out() -> None:
    net, x = settled(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))), volume(4, 5)
    network = trace(net, x)
    assert (network.input_size, [node.name for node in network.nodes]) == ((4, 1, 1, 1, 5), ["0", "3"])
    assert_same(network, net, x)
