"""Reference networks: the published shapes and counts, small volumes, messages on wrong arguments."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lrw
from lrw.nets import C3D, CLASSIFIERS, R3D18, UNet3D, build


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def winograd_layers(net: nn.Module) -> list[nn.Conv3d]:
    """The dense 3x3x3 convolutions of stride 1."""
    convolutions = (module for module in net.modules() if isinstance(module, nn.Conv3d))
    return [layer for layer in convolutions if layer.kernel_size == (3, 3, 3) and layer.stride == (1, 1, 1)]


def test_c3d_at_the_papers_size_has_the_papers_layers() -> None:
    with torch.device("meta"):
        net = C3D(norm=False)
    names = ("conv1", "conv2", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b")
    channels = [(3, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512)]
    layers: list[nn.Conv3d] = [getattr(net, name) for name in names]
    assert all(type(layer) is nn.Conv3d and layer.padding == (1, 1, 1) for layer in layers)
    assert [tuple(layer.weight.shape[1::-1]) for layer in layers] == channels
    assert winograd_layers(net) == layers
    assert (net.fc6.in_features, net.fc6.out_features, net.fc7.out_features) == (8192, 4096, 4096)
    convolutions = sum(27 * inputs * outputs + outputs for inputs, outputs in channels)
    linear = (8192 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 101
    assert parameters(net) == convolutions + linear


def test_c3d_runs_at_the_papers_size() -> None:
    net = C3D(width=1).eval()
    with torch.no_grad():
        assert net(torch.randn(1, 3, 16, 112, 112)).shape == (1, 101)


@pytest.mark.parametrize(
    ("size", "features"),
    [
        ((8, 16, 16), 8),
        ((8, 20, 20), 8),
        ((28, 28, 28), 16),
        ((16, 112, 112), 128),
        ((1, 1, 1), 8),
        ((1, 64, 3), 16),
    ],
)
def test_c3d_pools_round_up_and_stop_at_one(size: tuple[int, int, int], features: int) -> None:
    net = C3D(1, 5, size, width=1)
    assert net.fc6.in_features == features
    assert net.fc6.out_features == min(64, 4 * features)
    assert net(torch.randn(2, 1, *size)).shape == (2, 5)


def test_c3d_norm_takes_the_place_of_the_biases() -> None:
    plain, normed = C3D(1, 2, (8, 8, 8), 2, norm=False), C3D(1, 2, (8, 8, 8), 2)
    assert [layer.bias is None for layer in winograd_layers(plain)] == [False] * 8
    assert [layer.bias is None for layer in winograd_layers(normed)] == [True] * 8
    assert not any(isinstance(module, nn.BatchNorm3d) for module in plain.modules())
    assert sum(isinstance(module, nn.BatchNorm3d) for module in normed.modules()) == 8


def test_c3d_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    net = C3D(1, 3, (4, 8, 8), 4, norm=False)
    x = torch.randn(2, 1, 4, 8, 8)
    assert not torch.equal(net(x), net(x))
    net.eval()
    torch.testing.assert_close(net(x), net(x), rtol=0, atol=0)


def test_r3d18_has_torchvisions_parameters_and_names() -> None:
    with torch.device("meta"):
        net = R3D18()
    assert parameters(net) == 33_371_472  # as torchvision documents for r3d_18
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["stem.0.weight"] == (64, 3, 3, 7, 7)
    assert shapes["layer1.1.conv2.1.running_mean"] == (64,)
    assert shapes["layer2.0.conv1.0.weight"] == (128, 64, 3, 3, 3)
    assert shapes["layer4.0.downsample.0.weight"] == (512, 256, 1, 1, 1)
    assert shapes["fc.weight"] == (400, 512)


@pytest.mark.parametrize(("size", "stem", "count"), [((16, 64, 64), (3, 7, 7), 13), ((64, 63, 64), (3, 3, 3), 14)])
def test_r3d18_stem_follows_the_shorter_side(
    size: tuple[int, int, int], stem: tuple[int, int, int], count: int
) -> None:
    with torch.device("meta"):
        net = R3D18(1, 2, size)
    first = next(module for module in net.modules() if isinstance(module, nn.Conv3d))
    assert first.kernel_size == stem
    assert first.stride == ((1, 2, 2) if stem[1] == 7 else (1, 1, 1))
    assert len(winograd_layers(net)) == count


def test_r3d18_small_is_the_medmnist_network() -> None:
    with torch.device("meta"):
        net = R3D18(1, 2, (28, 28, 28))
    layers = [(layer.in_channels, layer.out_channels) for layer in winograd_layers(net)]
    assert layers == [(1, 64)] + [(64, 64)] * 4 + [(128, 128)] * 3 + [(256, 256)] * 3 + [(512, 512)] * 3


@pytest.mark.parametrize("size", [(16, 72, 64), (9, 17, 13), (1, 1, 1)])
def test_r3d18_runs_at_any_size(size: tuple[int, int, int]) -> None:
    net = R3D18(2, 7, size, width=2)
    assert net(torch.randn(2, 2, *size)).shape == (2, 7)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, in_channels=1, classes=3, input_size=(8, 12, 12), width=4)
    loss = nn.functional.cross_entropy(net(torch.randn(4, 1, 8, 12, 12)), torch.tensor([0, 1, 2, 0]))
    loss.backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert math.isfinite(float(parameter.grad.abs().sum())), parameter_name
        assert bool(parameter.grad.abs().sum() > 0), parameter_name


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_networks_can_fit_a_handful_of_volumes(name: str) -> None:
    torch.manual_seed(0)
    net = build(name, in_channels=1, classes=4, input_size=(4, 12, 12), width=4)
    volumes, labels = torch.randn(8, 1, 4, 12, 12), torch.arange(8) % 4
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(volumes), labels).backward()
        optimizer.step()
    net.eval()
    assert torch.equal(net(volumes).argmax(dim=1), labels)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_networks_trace_to_the_same_function(name: str) -> None:
    net = build(name, in_channels=1, classes=3, input_size=(4, 8, 8), width=2).eval()
    x = torch.randn(2, 1, 4, 8, 8)
    torch.testing.assert_close(torch.fx.symbolic_trace(net)(x), net(x), rtol=0, atol=0)


@settings(max_examples=20, deadline=None)
@given(
    name=st.sampled_from(CLASSIFIERS),
    size=st.tuples(*[st.integers(1, 18)] * 3),
    channels=st.integers(1, 3),
    classes=st.integers(1, 5),
    width=st.integers(1, 3),
)
def test_any_volume_gives_one_row_of_logits_each(
    name: str, size: tuple[int, int, int], channels: int, classes: int, width: int
) -> None:
    net = build(name, in_channels=channels, classes=classes, input_size=size, width=width)
    logits = net(torch.ones(2, channels, *size))
    assert logits.shape == (2, classes)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize(("size", "levels"), [((8, 16, 24), 4), ((4, 8, 12), 3), ((4, 6, 8), 2)])
def test_a_u_net_has_as_many_levels_as_its_size_can_be_halved_for(size: tuple[int, int, int], levels: int) -> None:
    net = build("unet3d", in_channels=1, classes=3, input_size=size, width=2)
    assert isinstance(net, UNet3D)
    assert len(net.down) == levels
    assert net(torch.ones(1, 1, *size)).shape == (1, 3, *size)
    with pytest.raises(ValueError, match=r"input_size: \(5, 8, 8\); accepted are even sides, multiples of 8 for all 4"):
        build("unet3d", in_channels=1, classes=3, input_size=(5, 8, 8), width=2)


def test_build_takes_the_papers_width_by_default() -> None:
    with torch.device("meta"):
        c3d = build("c3d", in_channels=3, classes=101, input_size=(16, 112, 112))
        r3d = build("r3d18", in_channels=3, classes=400, input_size=(16, 112, 112), width=64)
    assert isinstance(c3d, C3D)
    assert c3d.conv1.out_channels == 64
    assert isinstance(r3d, R3D18)
    assert parameters(r3d) == 33_371_472


def test_build_names_what_it_accepts() -> None:
    with pytest.raises(ValueError, match="name must be one of c3d, r3d18, unet3d, got 'vgg'"):
        build("vgg", in_channels=1, classes=2, input_size=(8, 8, 8))


@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_channels": 0}, "in_channels: 0; accepted are whole numbers from 1"),
        ({"classes": 2.0}, "classes: 2.0; accepted are whole numbers from 1"),
        ({"width": -8}, "width: -8; accepted are whole numbers from 1"),
        ({"width": True}, "width: True; accepted are whole numbers from 1"),
        ({"input_size": (8, 8)}, r"input_size: \(8, 8\); accepted are three whole numbers from 1"),
        ({"input_size": 8}, r"input_size: 8; accepted are three whole numbers from 1"),
        ({"input_size": "888"}, r"input_size: '888'; accepted are three whole numbers from 1"),
        ({"input_size": (8, 0, 8)}, r"input_size: \(8, 0, 8\); accepted are three"),
    ],
)
def test_wrong_arguments_are_named(name: str, change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"in_channels": 1, "classes": 2, "input_size": (8, 8, 8), **change}
    with pytest.raises(ValueError, match=message):
        build(name, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("dropout", [-0.1, 1.0, float("nan")])
def test_c3d_refuses_a_dropout_outside_zero_to_one(dropout: float) -> None:
    with pytest.raises(ValueError, match="dropout must be at least 0 and below 1"):
        C3D(1, 2, (8, 8, 8), 2, dropout)


def test_unet_segments_and_converts() -> None:
    torch.manual_seed(0)
    net = UNet3D(1, 3, width=4, levels=3).eval()
    x = torch.randn(1, 1, 8, 12, 16)
    logits = net(x)
    assert logits.shape == (1, 3, 8, 12, 16)
    channels = [(layer.in_channels, layer.out_channels) for layer in winograd_layers(net)]
    assert channels == [(1, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16), (24, 8), (8, 8), (12, 4), (4, 4)]
    torch.testing.assert_close(lrw.to_winograd(net, 2)(x), logits, rtol=1e-3, atol=1e-4)
    one = UNet3D(2, 1, width=3, levels=1)
    assert one(torch.randn(2, 2, 3, 5, 7)).shape == (2, 1, 3, 5, 7)
    with pytest.raises(ValueError, match=r"input: size \[8, 12, 18\]; accepted are multiples of 4"):
        net(torch.randn(1, 1, 8, 12, 18))
    for wrong in ("in_channels", "classes", "width", "levels"):
        with pytest.raises(ValueError, match=wrong):
            UNet3D(**{wrong: 0})
