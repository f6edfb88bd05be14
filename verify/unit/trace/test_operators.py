"""Each operator as it comes out of the table: the tables of pools and enlargements are torch's own, for any sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lrw.trace import trace
from lrw.trace.site import Activation, Nodes, Site
from lrw.trace.table import TABLE
from lrw.trace.walk import _arguments
from lrw_kernels.network.graph import INPUT, Network
from lrw_kernels.network.operators import FUNCTIONS as NAMES
from lrw_kernels.network.operators import ChannelsFirst, Linear, Pool, Resample
from verify.programs.interpreter import FUNCTIONS, assert_same, computed
from verify.tolerances import assert_close

aten = torch.ops.aten
EPS32, EPS64 = 2.0**-23, 2.0**-52


def applied(target: Any, x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Network]:
    """What torch gives for one operator, [N, C, D, H, W], and the network of it alone."""
    expected = target(x, *args, **kwargs)
    expected = expected[0] if isinstance(expected, tuple) else expected
    nodes, site = Nodes(INPUT), Activation(INPUT, tuple(x.shape))
    arguments = _arguments(target, (site, *args), kwargs)
    TABLE[target._schema.name](Site(nodes, "it", tuple(expected.shape)), **arguments)
    n, c, d, h, w = x.shape
    network = Network.single("net", (n, d, h, w, c), tuple(nodes))
    size = network.output.size
    return expected.reshape(size[0], size[4], *size[1:4]), network


def drawn(draw: st.DrawFn, low: int = 1, high: int = 9) -> Tensor:
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *(draw(st.integers(low, high)) for _ in range(3)))
    return torch.from_numpy(np.random.default_rng(draw(st.integers(0, 2**20))).standard_normal(shape)).float()


@st.composite
def slides(draw: st.DrawFn) -> tuple[Tensor, list[int], list[int], list[int], bool]:
    """An input and kernel, stride, padding and ceil mode that torch accepts for it."""
    x = drawn(draw)
    kernel = [draw(st.integers(1, n)) for n in x.shape[2:]]
    stride = draw(st.one_of(st.just([]), st.lists(st.integers(1, 4), min_size=3, max_size=3)))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    return x, kernel, stride, padding, draw(st.booleans())


@settings(max_examples=60)
@given(st.data())
def test_convolutions_leave_out_what_meets_padding_alone(data: st.DataObject) -> None:
    """And give what torch gives, on any sizes."""
    x = drawn(data.draw, high=4)
    taps = [data.draw(st.integers(1, 5)) for _ in range(3)]
    stride, dilation = ([data.draw(st.integers(1, 3)) for _ in range(3)] for _ in range(2))
    padding = [data.draw(st.integers(0, 5)) for _ in range(3)]
    for i, n in enumerate(x.shape[2:]):
        padding[i] = max(padding[i], -(-(dilation[i] * (taps[i] - 1) + 1 - n) // 2))  # one output at least
    w = torch.randn(3, x.shape[1], *taps)
    expected, network = applied(aten.conv3d.default, x, w, None, stride, padding, dilation)
    terms = w[0].numel()
    tolerance = (terms + 2) * EPS32 * terms * float(x.abs().max()) * float(w.abs().max())
    assert_close(computed(network, x).numpy(), expected.numpy(), tolerance, "convolution")


@pytest.mark.parametrize(
    ("size", "taps", "padding", "left"),
    [
        ((1, 2, 2), 3, 1, (1, 3, 3)),
        ((1, 1, 1), 3, 1, (1, 1, 1)),
        ((1, 2, 3), 5, 2, (1, 3, 5)),
        ((2, 2, 2), 3, 1, (3, 3, 3)),
        ((1, 1, 1), 3, 2, (3, 3, 3)),
    ],
)
def test_taps_that_meet_padding_alone_have_no_weights(
    size: tuple[int, int, int], taps: int, padding: int, left: tuple[int, int, int]
) -> None:
    x, w = torch.randn(1, 2, *size), torch.randn(3, 2, taps, taps, taps)
    _, network = applied(aten.conv3d.default, x, w, None, [1, 1, 1], 3 * [padding])
    assert network.nodes[-1].operator.weight.shape[:3] == left


@settings(max_examples=40)
@given(slides())
def test_max_pools_take_the_windows_torch_takes(slide: tuple[Any, ...]) -> None:
    x, kernel, stride, padding, ceil_mode = slide
    for target in (aten.max_pool3d.default, aten.max_pool3d_with_indices.default):
        expected, network = applied(target, x, kernel, stride, padding, 1, ceil_mode)
        assert torch.equal(computed(network, x).float(), expected)


@settings(max_examples=40)
@given(slides(), st.booleans(), st.sampled_from([None, 1, 5, -3]))
def test_average_pools_divide_by_what_torch_does(slide: tuple[Any, ...], count: bool, divisor: int | None) -> None:
    x, kernel, stride, padding, ceil_mode = slide
    x = x.double()
    expected, network = applied(aten.avg_pool3d.default, x, kernel, stride, padding, ceil_mode, count, divisor)
    terms = float(np.prod(kernel))
    assert_close(computed(network, x).numpy(), expected.numpy(), terms * EPS64 * terms * float(x.abs().max()), "mean")


@st.composite
def adaptives(draw: st.DrawFn) -> tuple[Tensor, list[int]]:
    return drawn(draw), [draw(st.integers(1, 12)) for _ in range(3)]


@settings(max_examples=40)
@given(adaptives())
def test_adaptive_pools_divide_axes_as_torch_does(case: tuple[Tensor, list[int]]) -> None:
    x, outputs = case
    expected, network = applied(aten.adaptive_max_pool3d.default, x, outputs)
    assert torch.equal(computed(network, x).float(), expected)
    expected, network = applied(aten.adaptive_avg_pool3d.default, x.double(), outputs)
    assert_close(computed(network, x).numpy(), expected.numpy(), 729 * EPS64 * float(x.abs().max()), "mean")


@pytest.mark.parametrize(("dim", "keepdim"), [([2, 3, 4], False), ([-1, 2, -2], True), ([3], True), ([4, 2], True)])
def test_means_maxima_and_sums_over_axes_are_pools(dim: list[int], keepdim: bool) -> None:
    x = torch.randn(2, 3, 4, 2, 5, dtype=torch.float64)
    for target in (aten.mean.dim, aten.amax.default, aten.sum.dim_IntList):
        expected, network = applied(target, x, dim, keepdim)
        assert isinstance(network.output.operator, Pool)
        assert_close(computed(network, x).numpy(), expected.numpy(), 1600 * EPS64 * float(x.abs().max()), "over axes")


@st.composite
def enlargements(draw: st.DrawFn) -> tuple[Tensor, list[int] | None, list[float] | None]:
    """An input with sizes, or factors, of its enlargement: some whole, some not, some below 1."""
    x = drawn(draw)
    if draw(st.booleans()):
        return x, [draw(st.integers(1, 20)) for _ in range(3)], None
    factors = [draw(st.sampled_from([1.0, 2.0, 3.0, 1.5, 1.3, 0.7, 2.6])) for _ in range(3)]
    return x, None, [max(f, 1.0 / n) for f, n in zip(factors, x.shape[2:], strict=True)]


@settings(max_examples=40)
@given(enlargements())
def test_nearest_takes_the_inputs_torch_takes(case: tuple[Tensor, list[int] | None, list[float] | None]) -> None:
    x, size, factors = case
    expected, network = applied(aten.upsample_nearest3d.vec, x, size, factors)
    assert torch.equal(computed(network, x).float(), expected)


@settings(max_examples=40)
@given(enlargements(), st.booleans())
def test_trilinear_weighs_the_inputs_torch_does(case: tuple[Any, ...], align_corners: bool) -> None:
    """The shares are torch's in float32, so what is left is rounding: two products and a sum on each axis."""
    x, size, factors = case
    expected, network = applied(aten.upsample_trilinear3d.vec, x, size, align_corners, factors)
    assert_close(computed(network, x).float().numpy(), expected.numpy(), 9 * EPS32 * float(x.abs().max()), "sums")


def test_enlargements_by_their_other_signatures() -> None:
    x = torch.randn(1, 2, 3, 4, 5)
    expected, network = applied(aten.upsample_nearest3d.default, x, [5, 6, 5], 1.7, None, 1.0)
    assert torch.equal(computed(network, x).float(), expected)
    expected, network = applied(aten.upsample_trilinear3d.default, x, [5, 6, 5], False, 1.7, None, 1.0)
    assert isinstance(network.output.operator, Resample)
    assert_close(computed(network, x).float().numpy(), expected.numpy(), 9 * EPS32 * float(x.abs().max()), "sums")


@st.composite
def transposed(draw: st.DrawFn) -> tuple[nn.ConvTranspose3d, Tensor]:
    groups = draw(st.integers(1, 2))
    stride = [draw(st.integers(1, 3)) for _ in range(3)]
    how = {
        "kernel_size": [draw(st.integers(1, 3)) for _ in range(3)],
        "padding": [draw(st.integers(0, 1)) for _ in range(3)],
        "dilation": [draw(st.integers(1, 2)) for _ in range(3)],
        "output_padding": [draw(st.integers(0, s - 1)) for s in stride],
    }
    torch.manual_seed(draw(st.integers(0, 2**20)))
    net = nn.ConvTranspose3d(groups, 2 * groups, stride=stride, groups=groups, bias=draw(st.booleans()), **how)
    return net, torch.randn(1, groups, *(draw(st.integers(3, 4)) for _ in range(3)))


@settings(max_examples=6)
@given(transposed())
def test_transposed_convolutions_of_any_kind(case: tuple[nn.ConvTranspose3d, Tensor]) -> None:
    net, x = case
    assert_same(trace(net, x), net, x)


@settings(max_examples=6)
@given(st.integers(0, 2**20), st.data())
def test_convolutions_of_any_kind(seed: int, data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, 2))
    how = {
        "kernel_size": [data.draw(st.integers(1, 3)) for _ in range(3)],
        "padding": data.draw(st.sampled_from([0, 1, (1, 0, 2), "valid"])),
        "stride": [data.draw(st.integers(1, 2)) for _ in range(3)],
        "dilation": data.draw(st.sampled_from([1, 1, (1, 2, 1)])),
    }
    torch.manual_seed(seed)
    net, x = nn.Conv3d(2 * groups, 2 * groups, groups=groups, **how), torch.randn(2, 2 * groups, 5, 6, 7)
    assert_same(trace(net, x), net, x)


@pytest.mark.parametrize("kernel", [3, (1, 3, 5)])
def test_padding_same(kernel: Any) -> None:
    net, x = nn.Conv3d(1, 2, kernel, padding="same", dilation=(1, 1, 2)), torch.randn(1, 1, 6, 6, 6)
    assert_same(trace(net, x), net, x)


ACTIVATIONS = {
    "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(0.2), "gelu": nn.GELU(), "gelu_tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh(), "silu": nn.SiLU(inplace=True), "mish": nn.Mish(),
    "hardswish": nn.Hardswish(inplace=True), "hardsigmoid": nn.Hardsigmoid(), "elu": nn.ELU(0.7, inplace=True),
    "softplus": nn.Softplus(0.5, 3), "threshold": nn.Threshold(-0.25, 3.0), "clamp": nn.Hardtanh(-1, 2),
}  # fmt: skip


class Called(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


OTHERS: dict[str, tuple[nn.Module, str]] = {
    "ReLU6": (nn.ReLU6(inplace=True), "clamp"),
    "CELU": (nn.CELU(0.6), "elu"),
    "SELU": (nn.SELU(), "elu"),
    "PReLU of one slope": (nn.PReLU(), "leaky_relu"),
    "PReLU": (nn.PReLU(3), "prelu"),
    "a threshold of 0": (nn.Threshold(0.0, 0.0), "relu"),
    "no upper bound": (Called(lambda x: x.clamp(min=0)), "relu"),
    "no lower bound": (Called(lambda x: x.clamp(max=0.5)), "clamp"),
    "a lower bound": (Called(lambda x: x.clamp_min(-0.5)), "clamp"),
    "an upper bound": (Called(lambda x: x.clamp_max_(0.5)), "clamp"),
    "bounds the wrong way round": (Called(lambda x: x.clamp(0.5, -0.5)), "clamp"),
    "abs": (Called(torch.abs), "abs"),
    "exp": (Called(torch.exp), "exp"),
    "sqrt": (Called(torch.sqrt), "sqrt"),
}


def test_every_function_has_a_case() -> None:
    assert {function for _, function in OTHERS.values()} | ACTIVATIONS.keys() == NAMES.keys() | {"prelu"}


@pytest.mark.parametrize("name", [*ACTIVATIONS, *OTHERS])
def test_functions_of_every_number(name: str) -> None:
    net, function = OTHERS[name] if name in OTHERS else (ACTIVATIONS[name], name)
    if name == "PReLU":
        nn.init.normal_(net.weight)
    x = 3 * torch.randn(2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    x = x.abs() if name == "sqrt" else x
    (node,) = trace(net, x).nodes
    assert node.operator.function == function
    y = FUNCTIONS[function](x.double(), *node.operator.parameters)
    expected = net.double()(x.double()).detach().numpy()
    net.float()
    assert_close(y.numpy(), expected, 64 * EPS64 * float(np.abs(expected).max()), name)


class Every(nn.Module):
    """What else there is in the table, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(4, track_running_stats=True)
        self.register_buffer("mean", torch.randn(1, 4, 1, 1, 1))
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.bias = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(1 - (x - self.mean) / 0.7) * 1.5 + self.mean
        y = F.group_norm(F.instance_norm(2.0 * y), 2).contiguous().to(x.dtype)
        y = F.pad(y[:, :, 0:], (0, 0, 0, 0))
        y = torch.cat([F.dropout(y, 0.5, self.training)]).mean((2, 3, 4), keepdim=True)
        y = torch.addmm(self.bias, y.squeeze(-1).squeeze(-1).squeeze(-1), self.weight) @ self.weight.T
        return torch.softmax(y.detach().clone(), -1)


PAIRS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda x: x + x.tanh(),
    "difference": lambda x: x.tanh() - x,
    "product": lambda x: x * x.tanh(),
    "quotient": lambda x: x / x.exp(),
    "maximum": lambda x: torch.maximum(x, x.tanh()),
    "minimum": lambda x: torch.minimum(x.tanh(), x),
    "square": lambda x: x * x,
    "excitation": lambda x: x * x.mean((2, 3, 4), keepdim=True).sigmoid(),
    "excitation in place": lambda x: x.tanh().mul_(x.mean((2, 3, 4)).view(2, 4, 1, 1, 1)),
    "less the mean": lambda x: x.mean((2, 3, 4), keepdim=True) - x,
    "vectors": lambda x: x.mean((2, 3, 4)) * x.mean((2, 3, 4)).sigmoid(),
    "the same by their own operators": lambda x: (-x).square().pow(2) + x.abs().pow(0.5) + x**1,
}


@pytest.mark.parametrize("name", PAIRS)
def test_two_activations(name: str) -> None:
    net, x = Called(PAIRS[name]), torch.randn(2, 4, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert_same(trace(net, x), net, x)


class Gate(nn.Module):
    """An attention gate: one channel for all, made by a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Conv3d(4, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(x) * x + self.gate[0](x)


def test_an_attention_gate_is_two_nodes_and_a_sum() -> None:
    torch.manual_seed(0)
    net, x = Gate(), torch.randn(2, 4, 2, 3, 4)
    network = trace(net, x)
    assert_same(network, net, x)
    kinds = [getattr(node.operator, "kind", type(node.operator).__name__) for node in network.nodes]
    assert kinds == ["Direct", "multiply", "Direct", "add"]


class Beside(nn.Module):
    """A vector with constants behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.tensor([[1.0, 2.0]]).expand(x.size(0), 2)], dim=1)


def test_every_other_operator_in_one_network() -> None:
    torch.manual_seed(0)
    net, x = Every().eval(), torch.randn(2, 4, 2, 3, 4)
    network = trace(net, x)
    assert_same(network, net, x)
    kinds = [type(node.operator).__name__ for node in network.nodes]
    assert kinds == ["Affine", "Normalise", "Normalise", "Pool", "Linear", "Linear", "Softmax"]


class Shortcut(nn.Module):
    """Without parameters, as some ResNets have it: fewer pixels, and channels of zeros on both sides."""

    def forward(self, x: Tensor) -> Tensor:
        y = F.avg_pool3d(x, 1, stride=2)
        zeros = y.new_zeros(y.size(0), 3, *y.shape[2:])
        return torch.cat([zeros, y, torch.ones(y.size(0), 4, *y.shape[2:])], dim=1)


def test_constants_beside_activations_are_nodes_of_few_weights() -> None:
    net, x = Shortcut(), torch.randn(2, 6, 4, 5, 3)
    network = trace(net, x)
    assert [type(node.operator).__name__ for node in network.nodes] == ["Pool", "Direct", "Direct", "Concat"]
    assert [node.operator.weight.size for node in network.nodes[1:3]] == [2 * 3, 3 * 4]
    assert_same(network, net, x)
    joined = nn.Sequential(nn.Flatten(), Beside())
    assert_same(trace(joined, torch.randn(2, 3, 1, 1, 1)), joined, torch.randn(2, 3, 1, 1, 1))


def test_a_quotient_without_rounding_is_a_scale() -> None:
    class Quotient(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.div(x, 4.0, rounding_mode=None)

    assert_same(trace(Quotient(), torch.randn(1, 2, 2, 2, 2)), Quotient(), torch.randn(1, 2, 2, 2, 2))


@pytest.mark.parametrize("flat", [nn.Flatten(), nn.Unflatten(1, (3,)), nn.Sequential(nn.Flatten(2), nn.Flatten())])
def test_flattening(flat: nn.Module) -> None:
    x = torch.randn(2, 3, 1, 1, 1)
    assert [type(n.operator) for n in trace(nn.Sequential(flat, nn.Flatten(), nn.Linear(3, 2)), x).nodes] == [Linear]


def test_a_flattened_volume_comes_out_in_torch_order() -> None:
    net, x = nn.Sequential(nn.MaxPool3d(1), nn.Flatten()), torch.randn(2, 3, 2, 3, 2)
    network = trace(net, x)
    assert isinstance(network.output.operator, ChannelsFirst)
    assert_same(network, net, x)
