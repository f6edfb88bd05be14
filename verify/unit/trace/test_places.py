"""Slices, parts, padding and other orders, as torch has them."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrw.trace import trace
from lrw_kernels.network.graph import Network
from lrw_kernels.winograd.tile import MAX_PADDING
from verify.programs.interpreter import assert_same, computed

SHAPE = (2, 4, 4, 5, 6)
ENDS = st.none() | st.integers(-7, 7)


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def same(function: Callable[[Tensor], Tensor]) -> Network:
    """The network of `function`, which gives what that does, number by number."""
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    network = trace(Called(function), x)
    y = computed(network, x).float()
    assert torch.equal(y, function(x).reshape(y.shape))
    return network


def kinds(network: Network) -> list[str]:
    return [type(node.operator).__name__ for node in network.nodes]


SLICES = st.tuples(st.integers(2, 4), ENDS, ENDS, st.integers(1, 3)).filter(
    lambda s: len(range(SHAPE[s[0]])[s[1] : s[2] : s[3]]) > 0
)


@settings(max_examples=15)
@given(SLICES)
def test_slices_of_a_volume(cut: tuple[int, int | None, int | None, int]) -> None:
    axis, start, end, step = cut
    where = (slice(None),) * axis + (slice(start, end, step),)
    network = same(lambda x: x[where])
    assert kinds(network) == (["Copy"] if network.output.size == network.input_size else ["Gather"])


PLACES: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "channels": (lambda x: x[:, 1:3], ["Channels"]),
    "channels to the end": (lambda x: x[:, -1:], ["Channels"]),
    "all": (lambda x: x[:, :, 0:], ["Copy"]),
    "several axes": (lambda x: x[:, :, 1:, ::2, -3:-1], ["Gather"]),
    "channels and axes": (lambda x: x[:, 1:, 1:], ["Channels", "Gather"]),
    "narrow": (lambda x: x.narrow(3, 1, 2), ["Gather"]),
    "chunks": (lambda x: torch.cat(x.chunk(3, 1)[::-1], 1), ["Channels", "Channels", "Concat"]),
    "a part": (lambda x: x.split(3, -1)[1], ["Gather"]),
    "the last part": (lambda x: x.split(3, 2)[1], ["Gather"]),
    "parts": (lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1), ["Channels", "Channels", "Concat"]),
    "flipped": (lambda x: x.flip(2, -1), ["Gather"]),
    "rolled": (lambda x: x.roll((1, -2), (2, 4)), ["Gather"]),
    "repeated": (lambda x: x.repeat(1, 1, 2, 1, 3), ["Gather"]),
    "channels repeated": (lambda x: x.repeat(1, 3, 1, 1, 2), ["Gather", "Concat"]),
    "one channel repeated": (lambda x: x[:, :1].repeat(1, 6, 1, 1, 1), ["Channels", "Direct"]),
    "repeated once": (lambda x: x.repeat(1, 1, 1, 1, 1), ["Copy"]),
    "expanded": (lambda x: x[:, 1:2, :, :1].expand(2, 3, -1, 7, -1), ["Channels", "Gather", "Direct"]),
    "a mean expanded": (lambda x: x.amax((2, 3, 4), keepdim=True).expand_as(x), ["Pool", "Gather"]),
    "padded": (lambda x: F.pad(x, (1, 2, 0, 3)), ["Gather"]),
    "padded with a value": (lambda x: F.pad(x, (0, 0, 0, 0, 1, 1), value=-2.5), ["Gather"]),
    "cropped": (lambda x: F.pad(x, (-1, 2, -1, -2)), ["Gather"]),
    "replicated": (lambda x: F.pad(x, (7, 2, 0, 1, 1, 0), mode="replicate"), ["Gather"]),
    "reflected": (lambda x: F.pad(x, (5, 2, 0, 1, 3, 3), mode="reflect"), ["Gather"]),
    "circular": (lambda x: F.pad(x, (6, 2, 0, 1, 3, -1), mode="circular"), ["Gather"]),
    "cropped by replication": (lambda x: F.pad(x, (-2, 1, 0, 0, 0, -1), mode="replicate"), ["Gather"]),
    "by nothing": (lambda x: F.pad(x, (0, 0, 0, 0)), ["Copy"]),
    "more channels": (lambda x: F.pad(x, (0,) * 6 + (2, 1), value=0.5), ["Direct", "Direct", "Concat"]),
    "channels moved": (lambda x: F.pad(x, (0, 1) + (0,) * 4 + (-1, 1)), ["Gather", "Channels", "Direct", "Concat"]),
    "fewer channels": (lambda x: F.pad(x, (0,) * 6 + (-1, -2)), ["Channels"]),
    "some of a vector": (lambda x: F.adaptive_max_pool3d(x, 1).flatten(1)[:, 1:3], ["Pool", "Channels"]),
    "two of one value": (lambda x: F.pad(F.pad(x, (1, 0), value=1.0)[..., 1:], (0, 2), value=1.0), ["Gather"]),
    "two of two values": (lambda x: F.pad(F.pad(x, (1, 0), value=1.0), (0, 2), value=2.0), ["Gather", "Gather"]),
    "by their own operators": (
        lambda x: torch.ops.aten.constant_pad_nd(
            torch.ops.aten.replication_pad3d(torch.ops.aten.reflection_pad3d(x, [1] * 6), [0, 1, 0, 0, 2, 0]),
            [1, 1],
            3.0,
        ),
        ["Gather"],
    ),
}


@pytest.mark.parametrize("name", PLACES)
def test_numbers_at_other_places(name: str) -> None:
    function, operators = PLACES[name]
    assert kinds(same(function)) == operators


@pytest.mark.parametrize("mode", ["replicate", "reflect", "circular"])
@pytest.mark.parametrize("tile", [2, "auto"])
def test_convolutions_with_padding_of_any_mode(mode: str, tile: int | str) -> None:
    torch.manual_seed(0)
    net, x = nn.Conv3d(4, 2, 3, padding=(1, 2, 1), padding_mode=mode), torch.randn(SHAPE)
    network = trace(net, x, tile=tile)
    assert kinds(network)[0] == "Gather"
    assert_same(network, net, x)


@pytest.mark.parametrize(
    ("pad", "conv"),
    [
        (nn.ConstantPad3d((1, 1, 2, 2, 0, 0), 0.0), nn.Conv3d(4, 4, 3, padding=(1, 0, 1))),
        (nn.ZeroPad3d(2), nn.Conv3d(4, 4, 3, stride=2, groups=2)),
    ],
)
def test_zeros_before_a_convolution_are_its_padding(pad: nn.Module, conv: nn.Conv3d) -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(pad, conv), torch.randn(SHAPE)
    network = trace(net, x)
    assert_same(network, net, x)
    (node,) = network.nodes
    assert node.operator.padding == ((1, 2, 2) if conv.padding[0] else (2, 2, 2))


@pytest.mark.parametrize(
    "net",
    [
        nn.Sequential(nn.ConstantPad3d(1, 0.5), nn.Conv3d(4, 2, 3)),
        nn.Sequential(nn.ConstantPad3d((1, 0, 0, 0, 0, 0), 0.0), nn.Conv3d(4, 2, 3)),
        nn.Sequential(nn.ConstantPad3d((1, 1, -1, -1, 0, 0), 0.0), nn.Conv3d(4, 2, (3, 1, 3))),
        nn.Sequential(nn.ZeroPad3d(1), nn.ConvTranspose3d(4, 2, 3)),
        nn.Sequential(nn.ZeroPad3d(MAX_PADDING), nn.Conv3d(4, 2, 1, padding=1)),
    ],
)
def test_other_padding_stays(net: nn.Module) -> None:
    x = torch.randn(1, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    network = trace(net, x)
    assert_same(network, net, x)
    assert kinds(network)[0] == "Gather"


def test_zeros_that_others_read_stay() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv3d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = F.pad(x, (1, 1))
            return self.conv(x) + x

    torch.manual_seed(0)
    net, x = Both(), torch.randn(SHAPE)
    network = trace(net, x)
    assert_same(network, net, x)
    assert len(network.nodes) == 2
