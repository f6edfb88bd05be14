"""A network by hand with every operator a library can have, on sizes and channels nothing divides, two at a time."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import (
    FUNCTIONS,
    Affine,
    Binary,
    Channels,
    ChannelsFirst,
    Concat,
    Copy,
    Direct,
    Gather,
    Linear,
    Normalise,
    Operator,
    Pointwise,
    Pool,
    Resample,
    Softmax,
    Transposed,
    Winograd,
)
from lrw_kernels.winograd import Tile
from verify.strategies import Array

INPUT_SIZE = (2, 4, 5, 6, 3)
WHOLE = INPUT_SIZE[:4]
STRIDED = (2, 4, 3, 3)
PARAMETERS = {
    "leaky_relu": (0.3,), "elu": (1.5, 1.25, 0.75), "softplus": (1.5, 20.0), "threshold": (-0.5, 0.25),
    "clamp": (-0.75, 2.0),
}  # fmt: skip
SLOPES = (0.3, -0.2, 0.1, 1.5, 0.25, -0.5, 0.75, 0.05)
NEVER: tuple[int, ...] = ()


def slopes(count: int) -> Pointwise:
    """Leaky ReLU of so many channels."""
    return Pointwise("prelu", SLOPES[:count])


def some_columns(count: int, tile: Tile) -> tuple[int, ...]:
    """`count` random positions of `tile`, sorted."""
    return tuple(sorted(np.random.default_rng(count).choice(tile.positions, count, replace=False).tolist()))


class _Values:
    def __init__(self) -> None:
        self._generator = np.random.default_rng(5)

    def __call__(self, *shape: int) -> Array:
        """float32 numbers for which a sum over the first axes stays about 1."""
        terms = max(1, int(np.prod(shape[:-1])))
        return (self._generator.standard_normal(shape) / terms**0.5).astype(np.float32)


def every_operator() -> Network:
    """Concatenated are the input, another concatenation, and what others read, too; the output is a concatenation."""
    values, nodes = _Values(), list[Node]()

    def add(name: str, operator: Operator, *inputs: str, channels: int, outer: tuple[int, ...] = WHOLE) -> None:
        n, d, h, w = outer
        nodes.append(Node(name, operator, inputs, (n, d, h, w, channels)))

    _convolutions(values, add)
    _windows(values, add)
    _rows(values, add)
    return Network.single("every", INPUT_SIZE, tuple(nodes))


def _convolutions(values: _Values, add: Callable[..., None]) -> None:
    same, skew = Tile.of(2), Tile.of((1, 2, 4), (3, 3, 3), origin=(0, 1, 3))
    whole = Winograd(same, (1, 1, 1), ((5, tuple(range(64))),), (values(64, 3, 5),), values(5), Pointwise("gelu"))
    add("first", whole, INPUT, channels=5)
    add("beside", Concat(), INPUT, "first", channels=8)
    kept = some_columns(20, skew)
    weights = (values(20, 8, 3), values(0, 8, 1), values(1, 8, 1))
    blocks = ((3, kept), (1, NEVER), (1, (7,)))
    grouped = Winograd(skew, (1, 1, 1), blocks, weights, values(5), slopes(5))
    add("grouped", grouped, "beside", "first", channels=5)
    stem = Direct(values(3, 7, 7, 5, 4), values(4), (1, 2, 2), (1, 3, 3), after=Pointwise("elu", (1.5, 1.25, 0.75)))
    add("stem", stem, "grouped", channels=4, outer=STRIDED)
    depthwise = Direct(values(3, 3, 3, 1, 4), None, (1, 1, 1), (2, 2, 2), (2, 2, 2), groups=4, after=slopes(4))
    add("depthwise", depthwise, "stem", "stem", channels=4, outer=STRIDED)
    add("wider", Direct(values(1, 1, 1, 2, 6), values(6), groups=2), "depthwise", channels=6, outer=STRIDED)
    back = Transposed(values(3, 3, 4, 6, 5), values(5), (1, 2, 2), (1, 1, 1))
    add("back", back, "wider", channels=5)
    groups = Transposed(values(1, 3, 4, 2, 3), None, (1, 2, 2), (0, 1, 1), groups=3, after=slopes(3))
    add("back in groups", groups, "wider", channels=3)


def _windows(values: _Values, add: Callable[..., None]) -> None:
    starts, ends = ((0, 1, 2, 3), (0, 1, 3), (0, 1, 3)), ((2, 3, 4, 4), (2, 4, 5), (2, 4, 6))
    add("largest", Pool("max", starts, ends, ends), "beside", channels=8, outer=STRIDED)
    counts = ((3, 3, 3, 3), (2, 3, 2), (3, 3, 3))
    add("mean", Pool("mean", starts, ends, counts), "back", channels=5, outer=STRIDED)
    near = ((0, 1, 2, 3), (0, 0, 1, 1, 2), (0, 0, 1, 1, 2, 2))
    nearest = Resample(near, near, ((0.0,) * 4, (0.0,) * 5, (0.0,) * 6))
    add("nearest", nearest, "mean", channels=5)
    high = ((0, 1, 2, 3), (1, 1, 2, 2, 2), (1, 1, 2, 2, 2, 2))
    linear = Resample(near, high, ((0.0,) * 4, (0.1, 0.6, 0.1, 0.6, 0.0), (0.0, 0.4, 0.25, 0.75, 0.5, 0.0)))
    add("linear", linear, "largest", channels=8)


def _binaries(add: Callable[..., None]) -> None:
    """Of two sizes: vectors, one channel for all, both ways round; and of one with itself."""
    add("excited", Binary("multiply"), "shifted", "classes", channels=5)
    add("gated", Binary("multiply", Pointwise("prelu", SLOPES[:5])), "single", "excited", channels=5)
    add("difference", Binary("subtract", Pointwise("elu", (1.5, 1.25, 0.75))), "single", "gated", channels=5)
    add("outer", Binary("add"), "classes", "single", channels=5)
    add("larger", Binary("maximum"), "outer", "difference", channels=5)
    add("smaller", Binary("minimum"), "classes", "larger", channels=5)
    add("squared", Binary("multiply"), "smaller", "smaller", channels=5)
    add("quotient", Binary("divide"), "squared", "sigmoid", channels=5)
    add("put together", Binary("subtract"), "quotient", "shifted", channels=5)


def _places(add: Callable[..., None]) -> None:
    """Channels that lie where they are, in a concatenation and of what is changed in place; planes, rows and pixels in
    any order, some outside, dense and of wider buffers."""
    add("some", Channels(2, 5), "beside", channels=5)
    add("one", Channels(1, 1), "put together", channels=1)
    add("from one", Binary("subtract"), "put together", "one", channels=5)
    outside = Gather(((-1, 0, 1, 3), (0, 1, 2, -1, 4), (-1, -1, 2, 3, 4, -1)), 0.25)
    add("outside", outside, "some", channels=5)
    add("mirrored", Gather(((3, 2, 1, 0), (0, 0, 2, 4, 4), (5, 4, 3, 0, 1, 2))), "from one", channels=5)
    add("cut", Gather(((1, 2), (1, 2, 3), (0, 1, 2, 4))), "outside", channels=5, outer=(2, 2, 3, 4))
    add("placed", Gather(((-1, 0, 1, -1), (-1, 0, 1, 2, -1), (-1, 0, 1, 2, 3, -1))), "cut", channels=5)
    add("bent", Affine(np.float32(SLOPES[:5]), np.float32(SLOPES[3:]), Pointwise("prelu", SLOPES[1:6])), "mirrored",
        channels=5)  # fmt: skip
    add("moved", Binary("add", Pointwise("leaky_relu", (0.25,))), "bent", "placed", channels=5)


def _rows(values: _Values, add: Callable[..., None]) -> None:
    add("sum", Binary("add", Pointwise("relu")), "back", "grouped", channels=5)
    add("affine", Affine(values(5), values(5), Pointwise("relu")), "sum", channels=5)
    add("instance", Normalise(3, 1e-5, values(3), values(3)), "back in groups", channels=3)
    add("group", Normalise(2, 1e-3, values(8), values(8), Pointwise("prelu", SLOPES)), "linear", channels=8)
    joined = Normalise(4, 1e-3, values(8), values(8), Pointwise("prelu", SLOPES))
    add("joined", joined, "group", "linear", channels=8)
    add("joined late", replace(joined, late=True), "joined", "group", channels=8)
    add("leaky", Pointwise("leaky_relu", (0.1,)), "joined late", channels=8)
    for function in FUNCTIONS:
        source = "abs" if function == "sqrt" else "nearest"
        add(function, Pointwise(function, PARAMETERS.get(function, ())), source, channels=5)
    add("prelu", Pointwise("prelu", SLOPES[:5]), "nearest", channels=5)
    together = 5 * (len(FUNCTIONS) + 1)
    add("functions", Concat(), *FUNCTIONS, "prelu", channels=together)
    add("weighed", Direct(values(1, 1, 1, together, 5), values(5)), "functions", channels=5)
    add("vector", ChannelsFirst(), "wider", channels=6 * 4 * 3 * 3, outer=(2, 1, 1, 1))
    hidden, beyond = values(216, 19).T.copy(), values(19, 19).T.copy()
    add("hidden", Linear(hidden, values(19), Pointwise("silu")), "vector", channels=19, outer=(2, 1, 1, 1))
    add("beyond", Linear(beyond, after=Pointwise("relu")), "hidden", "hidden", channels=19, outer=(2, 1, 1, 1))
    add("classes", Direct(values(1, 1, 1, 19, 5), values(5)), "beyond", channels=5, outer=(2, 1, 1, 1))
    pixel = ((0,) * 4, (0,) * 5, (0,) * 6)
    add("everywhere", Resample(pixel, pixel, ((0.0,) * 4, (0.0,) * 5, (0.0,) * 6)), "classes", channels=5)
    add("shifted", Binary("add"), "everywhere", "weighed", channels=5)
    add("single", Direct(values(1, 1, 1, 5, 1), values(1)), "shifted", channels=1)
    _binaries(add)
    _places(add)
    add("shares", Softmax(), "moved", channels=5)
    add("middle", Channels(1, 3), "shares", channels=3)
    add("again", Copy(), "instance", channels=3)
    add("inner", Concat(), "single", "affine", "single", channels=7)
    add("output", Concat(), "inner", "shares", INPUT, "leaky", "again", "middle", channels=29)
