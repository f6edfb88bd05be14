"""Whole networks: what is traced computes what the network does, in as few nodes as it should; the network stays."""

from collections import Counter
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lrw.nets import C3D, R3D18, UNet3D
from lrw.trace import trace
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.network.graph import Network
from lrw_kernels.network.operators import Affine, Direct, Pointwise
from lrw_kernels.winograd import Tile
from verify.programs.interpreter import assert_same, computed, double, rounding
from verify.tolerances import assert_close
from verify.unit.trace.nets import MedResNet18, group_norm_unet, instance_norm_unet, settled, volume


def kinds(network: Network) -> Counter[str]:
    return Counter(type(node.operator).__name__ for node in network.nodes)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], dict[str, int]]] = {
    "C3D": (lambda: C3D(1, 3, (8, 16, 16), 4), (2, 1, 8, 16, 16), {"Winograd": 6, "Direct": 2, "Pool": 4, "Linear": 3}),
    "C3D without norm": (
        lambda: C3D(2, 3, (5, 9, 12), 4, norm=False),
        (1, 2, 5, 9, 12),
        {"Winograd": 6, "Direct": 2, "Pool": 4, "Linear": 3},
    ),
    "R3D-18": (
        lambda: R3D18(1, 3, (8, 9, 9), 4),
        (1, 1, 8, 9, 9),
        {"Winograd": 11, "Direct": 9, "Pool": 1, "Linear": 1},
    ),
    "R3D-18, large stem": (
        lambda: R3D18(2, 3, (3, 64, 64), 2),
        (1, 2, 3, 64, 64),
        {"Winograd": 13, "Direct": 7, "Pool": 1, "Linear": 1},
    ),
    "MedMNIST ResNet-18": (MedResNet18, (2, 1, 8, 8, 8), {"Winograd": 11, "Direct": 9, "Pool": 1, "Linear": 1}),
    "UNet3D": (
        lambda: UNet3D(1, 3, 4, 3),
        (1, 1, 8, 12, 4),
        {"Winograd": 10, "Direct": 1, "Pool": 2, "Resample": 2, "Concat": 2},
    ),
    "U-Net, instance norm": (
        instance_norm_unet,
        (1, 1, 8, 8, 12),
        {"Winograd": 6, "Direct": 3, "Transposed": 2, "Normalise": 8, "Concat": 2, "Softmax": 1},
    ),
    "U-Net, GELU": (
        lambda: group_norm_unet(nn.GELU),
        (2, 1, 8, 8, 8),
        {"Winograd": 6, "Direct": 5, "Resample": 2, "Normalise": 8, "Concat": 2, "Softmax": 1},
    ),
    "U-Net, SiLU": (
        lambda: group_norm_unet(lambda: nn.SiLU(inplace=True)),
        (1, 1, 8, 8, 8),
        {"Winograd": 6, "Direct": 5, "Resample": 2, "Normalise": 8, "Concat": 2, "Softmax": 1},
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
    assert [nodes[name].operator.after for name in block] == [Pointwise("relu"), None, Pointwise("relu")]


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
    assert [node.name for node in network.nodes] == ["input@2", "input@3"]
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


def test_a_padded_convolution_of_a_flattened_volume_keeps_its_padding() -> None:
    class Flattened(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(48, 3, 1, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.reshape(1, -1, 1, 1, 1))

    net, x = Flattened(), volume(1, 2, 2, 3, 4)
    network = trace(net, x)
    assert network.output.size == (1, 3, 3, 3, 3)
    assert_same(network, net, x)


def test_vectors_go_in_and_come_out() -> None:
    net, x = settled(nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 3))), volume(4, 5)
    network = trace(net, x)
    assert (network.input_size, [node.name for node in network.nodes]) == ((4, 1, 1, 1, 5), ["0", "3"])
    assert_same(network, net, x)
