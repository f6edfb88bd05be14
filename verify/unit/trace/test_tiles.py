"""Which convolutions go to the Winograd domain, and their weights there: of the filter, when they are asked for."""

import numpy as np
import pytest
import torch

from lrw.ops import transform_weight
from lrw.trace.tiles import tiled
from lrw_kernels.choice.convolution import Convolution, always
from lrw_kernels.codegen.machine import AVX512, NEON, Machine
from lrw_kernels.cpu import layout
from lrw_kernels.network.graph import INPUT, Network, Node, Size
from lrw_kernels.network.operators import Direct, Pointwise, Winograd
from lrw_kernels.network.transformed import Transformed
from lrw_kernels.winograd import Tile

SIZE: Size = (2, 5, 6, 7, 4)
EPS = 2.0**-24  # of a rounding to nearest


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def one(operator: Direct, size: Size = SIZE) -> Network:
    return Network.single("one", SIZE, (Node("a", operator, (INPUT,), size),))


def test_a_convolution_keeps_what_it_does_besides() -> None:
    asked: list[Convolution] = []
    direct = Direct(normal(3, 1, 3, 4, 9), normal(9), padding=(1, 0, 1), after=Pointwise("elu", (1.0, 1.0, 1.0)))

    def choose(of: Convolution) -> Tile:
        asked.append(of)
        return Tile.of(2, of.taps)

    (node,) = tiled(one(direct, (2, 5, 6, 7, 9)), choose).nodes
    assert isinstance(node.operator, Winograd)
    assert asked == [Convolution((3, 1, 3), 4, 9, 2, (5, 6, 7), (1, 0, 1))]
    assert (node.operator.padding, node.operator.after) == (direct.padding, direct.after)
    assert node.operator.bias is direct.bias
    assert node.operator.blocks == ((9, tuple(range(16))),)


@pytest.mark.parametrize(
    "direct",
    [
        Direct(normal(3, 3, 3, 4, 4), stride=(1, 2, 1)),
        Direct(normal(3, 3, 3, 4, 4), dilation=(1, 1, 2)),
        Direct(normal(3, 3, 3, 2, 4), groups=2),
        Direct(normal(1, 1, 1, 4, 4)),
    ],
    ids=["stride", "dilation", "groups", "one tap"],
)
def test_others_stay_as_they_are(direct: Direct) -> None:
    (node,) = tiled(one(direct), always(2)).nodes
    assert node.operator is direct


@pytest.mark.parametrize("tile", [Tile.of(4), Tile.of((1, 2, 4), (1, 3, 5))], ids=str)
def test_weights_are_those_of_the_filter(tile: Tile) -> None:
    taps = [axis.r for axis in tile.axes]
    of = normal(*taps, 300, 70)  # input channels in several parts
    (u,) = Transformed(of, tile)
    exact = transform_weight(torch.from_numpy(of).double().permute(4, 3, 0, 1, 2), tile).numpy()
    assert (np.abs(u - exact) <= EPS * np.abs(exact) + 1e-12).all()
    assert [part.shape[1] for _, part in Transformed(of, tile).parts()] == [234, 66]


@pytest.mark.parametrize("machine", [AVX512, NEON], ids=["avx512", "neon"])
@pytest.mark.parametrize("columns", [7, 32, 75])
def test_rows_of_panels_come_in_any_parts(machine: Machine, columns: int) -> None:
    weights = normal(5, 11, columns)
    made = np.zeros(layout.panels_shape(weights.shape, machine, "float32"), np.float32)
    for first, last in ((8, 11), (0, 3), (3, 8)):
        layout.put_rows(made, weights[:, first:last], first, 11, machine)
    np.testing.assert_array_equal(made.ravel(), layout.panels(weights, machine))
    assert layout.panels(weights[:0], machine).size == 0
