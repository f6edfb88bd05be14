"""Operators on activations [N, D, H, W, C] float32, as data, with their weights. Vectors are [N, 1, 1, 1, C]."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from lrw_kernels.winograd import Block, Tile
from lrw_kernels.winograd.tile import Triple

Array = npt.NDArray[np.float32]
Axes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
BinaryKind = Literal["add", "subtract", "multiply", "divide", "maximum", "minimum"]
FUNCTIONS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("relu gelu gelu_tanh sigmoid tanh silu mish hardswish hardsigmoid abs exp sqrt".split(), ()),
    "leaky_relu": ("slope",),  # below 0
    "elu": ("below", "above", "rate"),  # above x, or below 0 below (exp(rate x) - 1)
    "softplus": ("beta", "threshold"),  # log(1 + exp(beta x)) / beta, or x where beta x is above the threshold
    "threshold": ("threshold", "value"),  # x, or the value where x is not above the threshold
    "clamp": ("low", "high"),
}
"""Functions of one number, with the names of their parameters."""
BY_CHANNEL = "prelu"
"""The function that has a parameter for each channel: leaky ReLU, with slopes."""


@dataclass(frozen=True)
class Pointwise:
    """The function called `function` of every number: one of FUNCTIONS, with its `parameters`, or BY_CHANNEL,
    with as many as there are channels."""

    function: str
    parameters: tuple[float, ...] = ()

    def some(self, first: int, count: int) -> "Pointwise":
        """The same for `count` channels from the `first` on."""
        return self if self.function != BY_CHANNEL else Pointwise(BY_CHANNEL, self.parameters[first : first + count])

    def repeated(self, times: int) -> "Pointwise":
        """The same for all channels so many times."""
        return self if self.function != BY_CHANNEL else Pointwise(BY_CHANNEL, self.parameters * times)


@dataclass(frozen=True, eq=False)
class Winograd:
    """Winograd convolution, then bias [Cout], the second input if there is one, a function if there is one.

    Each of `blocks` (channels, kept positions) of output channels has its U in `weights`: [K, Cin, channels].
    """

    tile: Tile
    padding: Triple
    blocks: tuple[Block, ...]
    weights: Sequence[Array]
    bias: Array | None = None
    after: Pointwise | None = None


@dataclass(frozen=True, eq=False)
class _Convolution:
    """Products with `weight` [kd, kh, kw, Cin / groups, Cout], then bias [Cout], and a function if there is one."""

    weight: Array
    bias: Array | None = None
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1
    after: Pointwise | None = None


@dataclass(frozen=True, eq=False)
class Direct(_Convolution):
    """Convolution; the second input, if there is one, is added before the function."""


@dataclass(frozen=True, eq=False)
class Transposed(_Convolution):
    """Transposed convolution (torch's conv_transpose3d): outputs o = i * stride - padding + k * dilation gather
    x[i] weight[k]."""


@dataclass(frozen=True, eq=False)
class Linear:
    """Products of vectors with `weight` [Cout, Cin], then bias [Cout], the second input if there is one, a function if
    there is one. The weight may be another's memory, such as torch's: what is written there, this operator has."""

    weight: Array
    bias: Array | None = None
    after: Pointwise | None = None


@dataclass(frozen=True)
class Pool:
    """The maximum or the mean over windows: output o of an axis takes inputs starts[o] up to ends[o] (not included).

    A mean divides by the product over axes of counts[o], which is more than the window where padding counts.
    """

    kind: Literal["max", "mean"]
    starts: Axes
    ends: Axes
    counts: Axes


@dataclass(frozen=True)
class Resample:
    """Along each axis output o is (1 - share[o]) x[low[o]] + share[o] x[high[o]]: nearest (share 0) and trilinear."""

    low: Axes
    high: Axes
    share: tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Gather:
    """Output o of an axis is input index[o], all of it `value` where that is -1: slices, padding, other orders."""

    index: Axes
    value: float = 0.0


@dataclass(frozen=True)
class Channels:
    """`count` of the input's channels, from `first` on."""

    first: int
    count: int


@dataclass(frozen=True)
class Binary:
    """Two inputs put together number by number, then a function if there is one. Where one of them has a size of 1,
    that one stands for all of the other's: a vector for a volume, one channel for all."""

    kind: BinaryKind
    after: Pointwise | None = None


@dataclass(frozen=True)
class Concat:
    """All inputs side by side along the channels."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x * scale + shift, by channel [C]; then a function if there is one."""

    scale: Array
    shift: Array
    after: Pointwise | None = None


@dataclass(frozen=True, eq=False)
class Normalise:
    """Each sample's `groups` of channels to mean 0 and variance 1 (plus `epsilon`), then scale and shift [C], then the
    second input and a function if there are such, or where it is `late` the function and then the second input.

    Group norm; instance norm is one group a channel.
    """

    groups: int
    epsilon: float
    scale: Array
    shift: Array
    after: Pointwise | None = None
    late: bool = False


@dataclass(frozen=True)
class Softmax:
    """exp(x) over the sum along the channels."""


@dataclass(frozen=True)
class ChannelsFirst:
    """[N, D, H, W, C] as vectors [N, 1, 1, 1, C * D * H * W] in torch's order: channels, then pixels."""


@dataclass(frozen=True)
class Copy:
    """The input again, in memory of its own."""


Followed = Winograd | Direct | Transposed | Linear | Binary | Affine | Normalise
"""Operators that a function may follow before their results are written."""
Operator = (
    Winograd
    | Direct
    | Transposed
    | Linear
    | Pool
    | Resample
    | Gather
    | Channels
    | Pointwise
    | Binary
    | Concat
    | Affine
    | Normalise
    | Softmax
    | ChannelsFirst
    | Copy
)
