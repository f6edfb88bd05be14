"""What cannot be exported is refused by name, place and reason, all of it at once, with the network as it was."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrw
from lrw.trace import trace
from verify.unit.export.calls import ENVIRONMENT, ROOT

X = torch.randn(2, 4, 4, 4, 4, generator=torch.Generator().manual_seed(0))


class Fn(nn.Module):
    """A function, with a convolution at hand."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 1)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def within(module: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv3d(4, 4, 1), nn.Sequential(nn.ReLU(), module))


OPERATORS: dict[str, tuple[nn.Module, str]] = {
    "log sigmoid": (within(nn.LogSigmoid()), "aten.log_sigmoid at '1.1' [2, 4, 4, 4, 4]: is none of this version's"),
    "CELU": (within(nn.CELU(-0.5)), "aten.celu at '1.1' [2, 4, 4, 4, 4]: alpha -0.5; accepted are numbers above 0"),
    "ELU": (
        Fn(lambda m, x: torch.ops.aten.elu(x, 1.0, 1.0, -2.0)),
        "aten.elu at 'elu' [2, 4, 4, 4, 4]: input_scale -2.0; accepted are numbers above 0",
    ),
    "softplus": (within(nn.Softplus(-1.0)), "aten.softplus at '1.1' [2, 4, 4, 4, 4]: beta -1.0; accepted are numbers"),
    "bounds by position": (
        Fn(lambda m, x: x.clamp(m.conv.weight[0, 0, 0], None)),
        "aten.clamp at 'clamp' [2, 4, 4, 4, 4]: its min is a tensor; accepted are numbers",
    ),
    "slopes that are computed": (
        Fn(lambda m, x: torch.ops.aten._prelu_kernel(x, x.mean((2, 3, 4), keepdim=True))),
        "aten._prelu_kernel at 'prelu_kernel' [2, 4, 4, 4, 4]: its weight is computed from the input; accepted are",
    ),
    "slopes by sample": (
        Fn(lambda m, x: torch.ops.aten._prelu_kernel(x, torch.ones(2, 1, 1, 1, 1))),
        "at 'prelu_kernel' [2, 4, 4, 4, 4]: its weight has 2 numbers; accepted are 1 and 4, one a channel",
    ),
    "layer norm": (within(nn.LayerNorm(4)), "aten.layer_norm at '1.1'"),
    "slice of samples": (
        Fn(lambda m, x: x[:1]),
        "aten.slice at 'slice' [1, 4, 4, 4, 4]: along the samples, dim 0; accepted are the channels and the axes of",
    ),
    "every other channel": (
        Fn(lambda m, x: x[:, ::2]),
        "aten.slice at 'slice' [2, 2, 4, 4, 4]: channels [0, 2]; accepted are some that follow one another",
    ),
    "channels turned": (Fn(lambda m, x: x.flip(1)), "aten.flip at 'flip' [2, 4, 4, 4, 4]: channels [3, 2, 1, 0]"),
    "slice of nothing": (Fn(lambda m, x: x[:, 4:]), "aten.slice at 'slice' [2, 0, 4, 4, 4]: of nothing"),
    "flat roll": (Fn(lambda m, x: x.roll(1)), "aten.roll at 'roll' [2, 4, 4, 4, 4]: dims []; accepted are those of"),
    "uneven padding": (
        within(nn.Conv3d(4, 4, 2, padding="same")),
        "aten.conv3d at '1.1' [2, 4, 4, 4, 4]: padding 'same'",
    ),
    "dilated pool": (
        within(nn.MaxPool3d(2, dilation=(1, 2, 1))),
        "max_pool3d at '1.1' [2, 4, 2, 1, 2]: dilation [1, 2, 1]",
    ),
    "softmax over the volume": (within(nn.Softmax(dim=4)), "aten.softmax at '1.1' [2, 4, 4, 4, 4]: dim 4 of 5"),
    "batch statistics": (
        within(nn.BatchNorm3d(4, track_running_stats=False)),
        "aten._native_batch_norm_legit at '1.1' [2, 4, 4, 4, 4]: normalises by the batch's own statistics",
    ),
    "linear on a volume": (within(nn.Linear(4, 2)), "aten.linear at '1.1' [2, 4, 4, 4, 2]: its input is of shape"),
    "active dropout": (
        Fn(lambda m, x: F.dropout(x, 0.5, True)),
        "aten.native_dropout at 'native_dropout' [2, 4, 4, 4, 4]: drops",
    ),
    "active channel dropout": (Fn(lambda m, x: F.dropout3d(m.conv(x), 0.5, True)), "aten.bernoulli at 'bernoulli'"),
    "noise": (Fn(lambda m, x: x + torch.randn_like(x)), "aten.randn_like at 'randn_like'"),
    "scaled sum": (Fn(lambda m, x: torch.add(x, m.conv(x), alpha=2)), "aten.add at 'add' [2, 4, 4, 4, 4]: alpha 2"),
    "sum of vectors of other axes": (
        Fn(lambda m, x: x.mean((2, 3, 4)) + (x.mean((2, 3, 4)) @ torch.ones(4, 1)).unsqueeze(2)),
        "aten.add at 'add' [2, 2, 4]: shapes [2, 4] and [2, 1, 1]; accepted are two of as many axes",
    ),
    "scaled difference of two": (
        Fn(lambda m, x: torch.sub(x, m.conv(x), alpha=2)),
        "aten.sub at 'sub' [2, 4, 4, 4, 4]: alpha 2",
    ),
    "cube": (Fn(lambda m, x: x**3), "aten.pow at 'pow' [2, 4, 4, 4, 4]: exponent 3; accepted are 0.5, 1 and 2"),
    "powers by channel": (
        Fn(lambda m, x: x ** torch.ones(1, 4, 1, 1, 1)),
        "aten.pow at 'pow' [2, 4, 4, 4, 4]: exponent tensor",
    ),
    "maximum with a constant": (
        Fn(lambda m, x: torch.maximum(x, torch.ones(4))),
        "aten.maximum at 'maximum' [2, 4, 4, 4, 4]: a constant where activations are accepted",
    ),
    "position constant": (
        Fn(lambda m, x: x + torch.ones(4, 4)),
        "aten.add at 'add' [2, 4, 4, 4, 4]: by a constant of shape [4, 4]",
    ),
    "mean of some": (Fn(lambda m, x: x.mean(2)), "aten.mean at 'mean' [2, 4, 4, 4]: dim [2]; accepted is [2, 3, 4]"),
    "mean of channels": (
        Fn(lambda m, x: x.mean((1, 2), keepdim=True)),
        "aten.mean at 'mean' [2, 1, 1, 4, 4]: dim [1, 2]; accepted is [2, 3, 4], or some of these",
    ),
    "repeated samples": (
        Fn(lambda m, x: x.repeat(2, 1, 1, 1, 1)),
        "aten.repeat at 'repeat' [4, 4, 4, 4, 4]: along the samples, dim 0",
    ),
    "more axes": (
        Fn(lambda m, x: x.repeat(1, 1, 1, 1, 1, 1)),
        "[1, 2, 4, 4, 4, 4]: repeats [1, 1, 1, 1, 1, 1]; accepted are",
    ),
    "mean of all": (Fn(lambda m, x: x.mean()), "aten.mean at 'mean' []: dim None"),
    "batches side by side": (Fn(lambda m, x: torch.cat([x, x])), "aten.cat at 'cat' [4, 4, 4, 4, 4]: dim 0"),
    "constant part": (
        Fn(lambda m, x: torch.cat([x, torch.arange(128.0).view(2, 1, 4, 4, 4)], 1)),
        "aten.cat at 'cat' [2, 5, 4, 4, 4]: a constant that differs within a channel",
    ),
    "reshaped": (Fn(lambda m, x: x.view(4, 2, 4, 4, 4)), "aten.view at 'view' [4, 2, 4, 4, 4]: from [2, 4, 4, 4, 4]"),
    "half": (Fn(lambda m, x: x.half()), "aten.to at 'to' [2, 4, 4, 4, 4]: gives torch.float16"),
    "weights that are computed": (
        Fn(lambda m, x: F.conv3d(x, x[:, :, :1, :1, :1])),
        "aten.conv3d at 'conv3d' [2, 2, 4, 4, 4]: its weight is computed from the input",
    ),
    "scaled product": (
        Fn(lambda m, x: torch.addmm(m.conv.bias, x.flatten(1), torch.ones(256, 4), alpha=2)),
        "aten.addmm at 'addmm' [2, 4]: beta 1, alpha 2",
    ),
    "a number taken out": (Fn(lambda m, x: x * x.sum().item()), "aten.sum at 'sum' []: dim None"),
    "sums of all": (Fn(lambda m, x: 1 - x.sum()), "aten.sum at 'sum' []: dim None"),
    "wide softmax": (
        Fn(lambda m, x: x.softmax(1, dtype=torch.float64)),
        "aten.softmax at 'softmax' [2, 4, 4, 4, 4]: gives torch.float64",
    ),
    "a sum with a number taken out": (
        Fn(lambda m, x: m.conv(x) + torch.full((4, 1, 1, 1), x.max().item())),
        "aten.max at 'max' []: is none",
    ),
    "floor of a quotient": (
        Fn(lambda m, x: torch.div(x, 2.0, rounding_mode="floor")),
        "aten.div at 'div' [2, 4, 4, 4, 4]: rounding_mode 'floor'; accepted is what has none",
    ),
    "a pool's indices": (
        Fn(lambda m, x: F.max_pool3d(x, 2, return_indices=True)[1] + 1),
        "aten.max_pool3d_with_indices at 'max_pool3d_with_indices' [2, 4, 2, 2, 2]: its output 1 is used",
    ),
    "an adaptive pool's indices": (
        Fn(lambda m, x: F.adaptive_max_pool3d(x, 2, return_indices=True)[1] + 1),
        "aten.adaptive_max_pool3d at 'adaptive_max_pool3d' [2, 4, 2, 2, 2]: its output 1 is used",
    ),
    "scaled difference": (Fn(lambda m, x: torch.sub(x, 1.0, alpha=2)), "aten.sub at 'sub' [2, 4, 4, 4, 4]: alpha 2"),
    "quotient": (Fn(lambda m, x: 1 / x), "aten.reciprocal at 'reciprocal' [2, 4, 4, 4, 4]: is none"),
    "a choice by the data": (
        Fn(lambda m, x: torch.cond(x.sum() > 0, lambda x: x.tanh(), lambda x: x.relu(), (x,))),
        "cond at 'cond' [2, 4, 4, 4, 4]: is none",
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_that_is_not_supported_is_named_with_its_place(name: str) -> None:
    net, words = OPERATORS[name]
    with pytest.raises(ValueError) as refusal:
        trace(net.eval(), X)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith("net: cannot be exported, because of ")


def test_all_of_them_are_named_at_once() -> None:
    net = nn.Sequential(
        nn.CELU(-1.0), nn.MaxPool3d(2, 1, dilation=2), nn.Conv3d(4, 4, 1), nn.Flatten(2), nn.Softmax(2), nn.LogSigmoid()
    )
    with pytest.raises(ValueError) as refusal:
        trace(net, X)
    named = [part.split(" at ")[0].split()[-1] for part in str(refusal.value).split("; ") if " at " in part]
    assert named == ["aten.celu", "aten.max_pool3d", "aten.view", "aten.log_sigmoid"]


def test_a_refused_network_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Dropout(), nn.BatchNorm3d(4), nn.LogSigmoid()).train()
    net[0].eval()
    with pytest.raises(ValueError, match="log_sigmoid"):
        trace(net, X)
    assert [module.training for module in net] == [False, True, True]
    assert int(net[1].num_batches_tracked) == 0


def test_what_is_refused_twice_is_named_once() -> None:
    with pytest.raises(ValueError) as refusal:
        trace(Fn(lambda m, x: x.cos() + x.cos()), X)
    assert str(refusal.value).count("aten.cos") == 1


class Counting(nn.Module):
    """Remembers how often it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        return x * self.calls


def data_dependent(module: nn.Module, x: Tensor) -> Tensor:
    return x if x.sum() > 0 else module.conv(x)


def fails(module: nn.Module, x: Tensor) -> Tensor:
    raise KeyError("lost")


def with_weight(value: float, dtype: torch.dtype = torch.float32) -> nn.Module:
    net = nn.Sequential(nn.Conv3d(4, 2, 1).to(dtype))
    with torch.no_grad():
        net[0].weight[0, 1] = value
    return net


def with_variance(value: float) -> nn.Module:
    net = nn.Sequential(nn.Conv3d(4, 4, 1), nn.BatchNorm3d(4)).eval()
    net[1].running_var[2] = value
    return net


PLAIN = nn.Conv3d(4, 2, 1)
RECTIFIED = nn.Sequential(lrw.WinogradConv3d(4, 4, rectified=True))
ARGUMENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "no network": (lambda: trace(F.relu, X), "net: a function; accepted is a torch network"),  # type: ignore[arg-type]
    "no tensor": (lambda: trace(PLAIN, [X]), "example_input: a list; accepted is a tensor, or a tuple"),  # type: ignore[arg-type]
    "whole numbers": (lambda: trace(PLAIN, X.long()), "example_input: torch.int64 on cpu"),
    "double": (lambda: trace(PLAIN, X.double()), "example_input: torch.float64 on cpu"),
    "another device": (lambda: trace(PLAIN, X.to("meta")), "example_input: torch.float32 on meta"),
    "no batch": (lambda: trace(PLAIN, X[0]), r"example_input: shape \(4, 4, 4, 4\); accepted are \[N, C, D, H, W\]"),
    "nothing in it": (lambda: trace(PLAIN, X[:0]), r"example_input: shape \(0, 4, 4, 4, 4\); .* not empty"),
    "half network": (lambda: trace(with_weight(0, torch.float16), X), "net: 0.weight is torch.float16 on cpu"),
    "NaN": (lambda: trace(with_weight(torch.nan), X), "0.weight: weights hold NaN or infinity"),
    "endless": (lambda: trace(with_weight(torch.inf), X), "0.weight: weights hold NaN or infinity"),
    "NaN statistics": (lambda: trace(with_variance(torch.nan), X), "1.running_var: weights hold NaN or infinity"),
    "negative variance": (lambda: trace(with_variance(-1.0), X), "0: its folded weight holds NaN or infinity"),
    "rectified": (lambda: trace(RECTIFIED, X), "net: '0' is a Winograd-ReLU layer"),
    "unknown tile": (lambda: trace(nn.Conv3d(4, 4, 3), X, tile="best"), "tile: 'best'; accepted are 'auto'"),
    "tile of another filter": (
        lambda: trace(nn.Conv3d(4, 4, (1, 3, 3)), X, tile=lrw.WinogradConv3d(1, 1).geometry.tile),
        "tile: .* is for kernel_size",
    ),
    "arguments without a tensor": (lambda: trace(PLAIN, (2.0, {})), "example_input: holds no tensor; accepted is a"),
    "an array": (
        lambda: trace(PLAIN, (X, {"a": [X.numpy()]})),
        r"example_input\[1\]\['a'\]\[0\]: a ndarray; accepted are tensors, numbers, texts and None",
    ),
    "ids": (lambda: trace(PLAIN, (X, {"ids": X.long()})), r"example_input\[1\]\['ids'\]: torch.int64 on cpu"),
    "a row": (lambda: trace(PLAIN, (X, X[0, 0])), r"example_input\[1\]: shape \(4, 4, 4\); accepted are"),
    "no output": (lambda: trace(Fn(lambda m, x: (None, 3)), X), "net: no tensor comes out; accepted is one at least"),
    "constant": (
        lambda: trace(Fn(lambda m, x: m.conv.bias + 1), X),
        "net: its result does not depend on the input; accepted are results that do",
    ),
    "a constant beside it": (
        lambda: trace(Fn(lambda m, x: {"y": m.conv(x), "b": [m.conv.bias + 1]}), X),
        r"net: its result\['b'\]\[0\] does not depend on the input",
    ),
    "memory": (lambda: trace(Counting(), X), "net: changes its buffer calls when called; accepted is a function"),
    "odd output": (lambda: trace(Fn(lambda m, x: x[0]), X), r"aten.select at 'select'"),
    "two inputs": (lambda: trace(nn.Bilinear(4, 4, 2), X), "net: torch.export cannot follow it: TypeError: .*input2"),
    "control flow": (
        lambda: trace(Fn(data_dependent), X),
        "net: torch.export cannot follow it: .*: Could not guard on data-dependent expression",
    ),
    "what the network raises": (lambda: trace(Fn(fails), X), "net: torch.export cannot follow it: KeyError: 'lost'"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_not_accepted(name: str) -> None:
    call, words = ARGUMENTS[name]
    with pytest.raises(ValueError, match=words):
        call()


ALOUD = """
import logging, sys, torch
from lrw.trace import trace
from verify.unit.trace.test_refusals import Fn, X, data_dependent
for net in (Fn(data_dependent), torch.nn.MaxPool3d(5)):
    try:
        trace(net, X)
    except ValueError as refusal:
        print(str(refusal).partition(":")[0], logging.root.manager.disable, sys.stderr is sys.__stderr__)
logging.getLogger("torch.export").error("heard again")
"""


def test_torch_says_nothing_of_its_own_while_it_exports_and_may_again_afterwards() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALOUD], capture_output=True, text=True, check=True, env=ENVIRONMENT, cwd=ROOT
    )
    assert done.stdout == "net 0 True\n" * 2
    assert done.stderr.splitlines()[-1].endswith("heard again")
    assert len(done.stderr.splitlines()) == 1
