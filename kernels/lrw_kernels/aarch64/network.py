"""A network as it is exported: operators on activations [N, D, H, W, C] float32, in order, each with its weights.

Fixed sizes, no control flow: everything data-dependent is a buffer's contents. Vectors [N, C] are [N, 1, 1, 1, C].
"""

import re
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
import numpy.typing as npt

from lrw_kernels.aarch64 import abi
from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import Block, Tile
from lrw_kernels.winograd.tile import Triple

Array = npt.NDArray[np.float32]
Size = tuple[int, int, int, int, int]
Axes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
INPUT = "input"
FUNCTIONS = ("relu", "leaky_relu", "gelu", "gelu_tanh", "sigmoid", "tanh", "silu")
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, eq=False)
class Winograd:
    """Winograd convolution, then bias [Cout], the second input if there is one, ReLU if asked for.

    Each of `blocks` (channels, kept positions) of output channels has its U in `weights`: [K, Cin, channels].
    """

    tile: Tile
    padding: Triple
    blocks: tuple[Block, ...]
    weights: tuple[Array, ...]
    bias: Array | None = None
    relu: bool = False


@dataclass(frozen=True, eq=False)
class _Convolution:
    """Products with `weight` [kd, kh, kw, Cin / groups, Cout], then bias [Cout], and ReLU if asked for."""

    weight: Array
    bias: Array | None = None
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)
    groups: int = 1
    relu: bool = False


@dataclass(frozen=True, eq=False)
class Direct(_Convolution):
    """Convolution; the second input, if there is one, is added before the ReLU. A linear layer is one on
    [N, 1, 1, 1, C]."""


@dataclass(frozen=True, eq=False)
class Transposed(_Convolution):
    """Transposed convolution (torch's conv_transpose3d): outputs o = i * stride - padding + k * dilation gather
    x[i] weight[k]."""


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
class Pointwise:
    """One of FUNCTIONS of every number; `parameter` is leaky ReLU's slope."""

    function: str
    parameter: float = 0.0


@dataclass(frozen=True)
class Add:
    """The sum of two inputs of one size, then ReLU if asked for."""

    relu: bool = False


@dataclass(frozen=True)
class Concat:
    """All inputs side by side along the channels."""


@dataclass(frozen=True, eq=False)
class Affine:
    """x * scale + shift, by channel [C]; then ReLU if asked for."""

    scale: Array
    shift: Array
    relu: bool = False


@dataclass(frozen=True, eq=False)
class Normalise:
    """Each sample's `groups` of channels to mean 0 and variance 1 (plus `epsilon`), then scale and shift [C].

    Group norm; instance norm is one group a channel.
    """

    groups: int
    epsilon: float
    scale: Array
    shift: Array


@dataclass(frozen=True)
class Softmax:
    """exp(x) over the sum along the channels."""


@dataclass(frozen=True)
class ChannelsFirst:
    """[N, D, H, W, C] as vectors [N, 1, 1, 1, C * D * H * W] in torch's order: channels, then pixels."""


@dataclass(frozen=True)
class Copy:
    """The input again."""


Operator = (
    Winograd
    | Direct
    | Transposed
    | Pool
    | Resample
    | Pointwise
    | Add
    | Concat
    | Affine
    | Normalise
    | Softmax
    | ChannelsFirst
    | Copy
)


@dataclass(frozen=True, eq=False)
class Node:
    """An operator at its place: `name` is unique, `inputs` name earlier nodes or the network's input, `size` is what
    comes out."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    size: Size

    @property
    def numbers(self) -> int:
        """Floats that come out."""
        return prod(self.size)


def check_name(name: str) -> None:
    """Raises ValueError for a network's name that C has no use for or that `abi.taken` knows."""
    if not isinstance(name, str) or not _C_IDENTIFIER.fullmatch(name):
        raise ValueError(f"name: {shown(name)}; accepted are C identifiers: letters, digits, _")
    if taken := abi.taken(name):
        raise ValueError(f"name: {shown(name)} would give a second {taken}; accepted are other names")


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in the order they are computed; the last one's activations are the output.

    `name` becomes part of C functions. Raises ValueError for a name that C has no use for or `abi.taken` knows, a
    network without nodes, a node that is there twice or refers to one that is not there yet.
    """

    name: str
    input_size: Size
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.nodes:
            raise ValueError("network: nothing is computed; accepted is one operator at least")
        known = {INPUT}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ValueError(f"node {node.name}: its input {unknown[0]!r} is not computed before it")
            if node.name in known:
                raise ValueError(f"node {node.name}: is there twice")
            known.add(node.name)

    @property
    def output(self) -> Node:
        """The last node."""
        return self.nodes[-1]

    def size(self, name: str) -> Size:
        """Of a node's activations, or of the input."""
        return self.input_size if name == INPUT else next(node.size for node in self.nodes if node.name == name)
