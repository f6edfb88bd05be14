"""Linear layers: any numbers of samples and channels, the weight read where it lies; channels of wider buffers."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import AVX2, NEON, Machine
from lrw_kernels.cpu.operators.grid import Epilogue
from lrw_kernels.cpu.operators.linear import CHUNK, linear
from lrw_kernels.cpu.step import Steps
from verify.strategies import Array
from verify.tolerances import assert_close
from verify.unit.cpu.operators import EPS, Buffer, Fenced, assert_lowers, every_machine, followed, functions, run


@dataclass(frozen=True)
class Layer:
    """A linear layer on vectors of its own, with room for other channels beside those of input and output."""

    batch: int
    channels: tuple[int, int]
    wider: tuple[int, int, int] = (0, 0, 0)
    bias: bool = True
    residual: bool = False
    after: str = ""
    threads: int = 1
    seed: int = 0

    def numbers(self, stream: int, *shape: int) -> Array:
        """Standard normal float32."""
        return np.random.default_rng([self.seed, stream]).standard_normal(shape).astype(np.float32)


layers = st.builds(
    Layer,
    st.one_of(st.integers(1, 9), st.sampled_from([16, 63, 65, 130])),
    st.tuples(*[st.sampled_from([1, 2, 3, 5, 8, 15, 16, 17, 33, 64, 101, CHUNK, CHUNK + 1, 3 * CHUNK - 7])] * 2),
    st.tuples(*[st.sampled_from([0, 0, 1, 5])] * 3),
    st.booleans(),
    st.booleans(),
    functions,
    st.integers(1, 2),
    st.integers(0, 2**32 - 1),
)


@every_machine
@settings(max_examples=30)
@given(layers, st.booleans())
@example(Layer(1, (700, 333), threads=2), True)
@example(Layer(5, (CHUNK + 9, 40), (1, 2, 3), residual=True, after="prelu"), True)
def test_linear(machine: Machine, layer: Layer, in_place: bool) -> None:
    """Steps against NumPy in float64; behind the weight lies a page that nobody may read."""
    cin, cout = layer.channels
    x, weight = layer.numbers(0, layer.batch, 1, 1, 1, cin), Fenced(cout * cin)
    matrix = weight.numbers.reshape(cout, cin)
    matrix[:] = layer.numbers(1, cout, cin)
    expected = x.astype(np.float64) @ matrix.T.astype(np.float64)
    bias = layer.numbers(2, cout) if layer.bias else None
    expected = expected if bias is None else expected + bias
    before, after, beside = layer.wider
    source, target = Buffer(x.shape, before, before + after, x), Buffer(expected.shape, after, after + beside)
    residual = Buffer(expected.shape, beside, beside, layer.numbers(3, *expected.shape))
    expected = expected + residual.numbers if layer.residual else expected
    after, slopes = followed(layer.after, cout)
    expected = np.where(expected > 0, expected, expected * slopes)
    epilogue = Epilogue(bias, residual.view if layer.residual else None, after)
    run(linear(source.view, target.view, matrix, machine, epilogue), layer.threads, in_place=in_place)
    largest = float(np.abs(x).max() * np.abs(matrix).max())
    assert_close(target.check(), expected, EPS * max(1, np.abs(slopes).max()) * (6 * largest * cin + 10), str(layer))


def steps(batch: int, cin: int, cout: int, machine: Machine = NEON) -> Steps:
    source, target = Buffer((batch, 1, 1, 1, cin), 0, 0), Buffer((batch, 1, 1, 1, cout), 0, 0)
    return linear(source.view, target.view, np.zeros((cout, cin), np.float32), machine)


@pytest.mark.parametrize("machine", [NEON, AVX2])
@pytest.mark.parametrize(("batch", "cout"), [(1, 300), (1, 4096), (1000, 64)])
def test_a_layer_shares_out_its_work(machine: Machine, batch: int, cout: int) -> None:
    (step,) = steps(batch, 40, cout, machine).steps
    assert step.items >= 16


def test_numbers_beside_the_channels_do_not_matter() -> None:
    """0 * NaN is NaN: what lies behind a row must not be multiplied, not even by zeros."""
    x = np.ones((1, 1, 1, 1, 5), np.float32)
    source, target = Buffer(x.shape, 2, 4, x), Buffer((1, 1, 1, 1, 2), 1, 3)
    wide = np.full((2, 8), np.nan, np.float32)
    wide[:, :5] = 1
    run(linear(source.view, target.view, wide[:, :5], NEON))
    np.testing.assert_array_equal(target.check().ravel(), [5, 5])


def test_an_array_held_in_place_is_read_anew_each_time() -> None:
    source, weight = Buffer((1, 1, 1, 1, 3), 0, 0, np.ones(3, np.float32)), np.ones((2, 3), np.float32)
    for value in (1, 7):
        target = Buffer((1, 1, 1, 1, 2), 0, 0)
        made = linear(source.view, target.view, weight, NEON)
        weight[:] = value
        run(made, in_place=True)
        np.testing.assert_array_equal(target.check().ravel(), [3 * value] * 2)


def test_kernels_lower_to_another_machine() -> None:
    assert_lowers([steps(1, 3, 5), steps(9, 3, 5)])
