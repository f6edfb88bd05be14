"""Operators that treat all pixels alike, normalisation, channels first; channels of wider buffers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.operators.norm import normalise
from lrw_kernels.cpu.operators.order import channels_first
from lrw_kernels.cpu.operators.rows import affine, binary, copy, pointwise, softmax
from lrw_kernels.cpu.step import View
from lrw_kernels.network.operators import Normalise, Pointwise
from verify.strategies import Array
from verify.tolerances import assert_close
from verify.unit.cpu.operators import (
    EPS,
    Buffer,
    Input,
    assert_lowers,
    every_machine,
    followed,
    functions,
    inputs,
    run,
    to_torch,
)

SETTINGS = settings(max_examples=30)
RELU, SLOPES = Pointwise("relu"), Pointwise("prelu", (1.0, 1.0, 1.0))


def by_channel(values: Array) -> torch.Tensor:
    return torch.from_numpy(values).double().view(1, -1, 1, 1, 1)


def buffers(case: Input) -> tuple[Buffer, Buffer]:
    return Buffer(case.size, *case.wider, case.x), Buffer(case.size, *case.wider)


@every_machine
@SETTINGS
@given(inputs)
def test_copy_into_channels_of_wider_activations(machine: Machine, case: Input) -> None:
    source, target = buffers(case)
    run(copy(source.view, target.view, machine), case.threads)
    np.testing.assert_array_equal(target.check(), case.x)


EXPECTED: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}


@every_machine
@pytest.mark.parametrize("kind", EXPECTED)
@settings(max_examples=20)
@given(inputs, functions, st.tuples(*[st.booleans()] * 10))
def test_two_inputs_of_any_sizes(kind: str, machine: Machine, case: Input, after: str, ones: tuple[bool, ...]) -> None:
    """Either input has a size of 1 where `ones` says so, and stands in a wider buffer or not."""
    sizes = [[1 if one else n for n, one in zip(case.size, some, strict=True)] for some in (ones[:5], ones[5:])]
    x, z = (np.random.default_rng((case.seed, i)).standard_normal(size).astype(np.float32) for i, size in
            enumerate(sizes))  # fmt: skip
    expected = EXPECTED[kind](x, z)
    source, other = Buffer(x.shape, *case.wider, x), Buffer(z.shape, 0, 1, z)
    in_place = [buffer for buffer in (source, other) if buffer.numbers.shape == expected.shape]
    target = in_place[-1] if in_place and case.seed % 2 else Buffer(expected.shape, *case.wider)
    function, slopes = followed(after, expected.shape[4])
    run(binary(kind, source.view, other.view, target.view, machine, function), case.threads)
    np.testing.assert_array_equal(target.check(), np.where(expected > 0, expected, expected * slopes))


def test_larger_and_smaller_of_what_is_no_number() -> None:
    x, z = np.array([[np.nan, 1, -np.inf, 2], [1, np.nan, 3, 2]], np.float32).reshape(2, 1, 1, 1, 1, 4)
    for kind in ("maximum", "minimum"):
        first, second, target = Buffer(x.shape, 0, 0, x), Buffer(x.shape, 0, 0, z), Buffer(x.shape, 0, 0)
        run(binary(kind, first.view, second.view, target.view, NEON))
        np.testing.assert_array_equal(target.numbers, EXPECTED[kind](x, z))


@every_machine
@SETTINGS
@given(inputs, functions)
def test_affine(machine: Machine, case: Input, after: str) -> None:
    source, target = buffers(case)
    scale, shift = np.random.default_rng(1).standard_normal((2, case.size[4])).astype(np.float32)
    function, slopes = followed(after, case.size[4])
    run(affine(source.view, target.view, scale, shift, machine, function), case.threads)
    expected = case.x.astype(np.float64) * scale + shift
    expected = np.where(expected > 0, expected, expected * slopes)
    assert_close(target.check(), expected, 2 * EPS * (np.abs(expected) + np.finfo(np.float32).tiny), str(case))


@every_machine
@SETTINGS
@given(inputs)
def test_functions_of_channels_of_wider_activations(machine: Machine, case: Input) -> None:
    source, target = buffers(case)
    run(pointwise(source.view, target.view, machine, Pointwise("tanh")), case.threads)
    assert_close(target.check(), np.tanh(case.x.astype(np.float64)), 2 * EPS, str(case))


@every_machine
@SETTINGS
@given(inputs, st.booleans())
def test_leaky_relu_with_a_slope_for_each_channel(machine: Machine, case: Input, in_place: bool) -> None:
    source, target = buffers(case)
    slopes = np.random.default_rng(1).standard_normal(case.size[4]).astype(np.float32)
    to = source if in_place else target
    run(pointwise(source.view, to.view, machine, Pointwise("prelu", tuple(slopes.tolist()))), case.threads)
    np.testing.assert_array_equal(to.check(), np.where(case.x > 0, case.x, case.x * slopes))


def test_few_channels_are_computed_pixels_at_a_time() -> None:
    x, slopes = Buffer((1, 2, 3, 1200, 3), 0, 0).view, np.ones(3, np.float32)
    for times, size in ((600, x.size), (1, (1, 2, 3, 1201, 3))):
        (step,) = affine(x._replace(size=size), x._replace(size=size), slopes, slopes, NEON).steps
        assert (step.items, step.job.record.out_w, step.job.record.channels) == (6, size[3] // times, 3 * times)


@every_machine
@SETTINGS
@given(inputs, st.sampled_from([1.0, 30.0]), st.sampled_from([0.0, 1e4, -1e4]))
def test_softmax(machine: Machine, case: Input, scale: float, shift: float) -> None:
    source, target = buffers(case)
    source.numbers[...] = (case.x * scale + shift).astype(np.float32)
    expected = torch.softmax(torch.from_numpy(source.numbers.astype(np.float64)), -1).numpy()
    run(softmax(source.view, target.view, machine), case.threads)
    # exp errs by its argument's rounding, at most half a unit of 110, where exp is not 0; sums by their length.
    tolerance = EPS * (110 + case.size[4]) * expected + 2.0**-149
    assert_close(target.check(), expected, tolerance, str(case))


def test_softmax_of_what_is_not_finite() -> None:
    inf, nan = np.inf, np.nan
    rows = [[0, -inf, 0], [-inf, -inf, -inf], [nan, 0, 0], [inf, 0, 0], [3e38, -3e38, 3e38]]
    x = np.array(rows, np.float32).reshape(1, 1, 1, 5, 3)
    source, target = Buffer(x.shape, 0, 0, x), Buffer(x.shape, 0, 0)
    run(softmax(source.view, target.view, NEON))
    np.testing.assert_array_equal(target.numbers, torch.softmax(torch.from_numpy(x), -1).numpy())


@every_machine
@SETTINGS
@given(inputs, st.data(), st.sampled_from([0.0, 1.0, 1e4]), st.sampled_from(["x", "z", "y"]))
def test_normalise(machine: Machine, case: Input, data: st.DataObject, mean: float, to: str) -> None:
    """With a second input or without, added before the function or after it; the result may lie in either's place."""
    channels = case.size[4]
    groups = data.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    added, late = data.draw(st.tuples(st.booleans(), st.booleans()))
    gain, offset = np.random.default_rng(1).standard_normal((2, channels)).astype(np.float32)
    source, target = buffers(case)
    other = Buffer(case.size, *case.wider, case.x[::-1, ::-1])
    source.numbers[...] = source.numbers + mean
    wide = [torch.from_numpy(vector).double() for vector in (gain, offset)]
    expected = torch.group_norm(to_torch(source.numbers), groups, *wide, 1e-3)
    z = to_torch(other.numbers) if added else torch.zeros_like(expected)
    result = {"x": source, "z": other if added else target, "y": target}[to]
    after, slopes = followed("prelu" if case.seed % 2 else "", channels)
    of = Normalise(groups, 1e-3, gain, offset, after, late)
    run(normalise(source.view, other.view if added else None, result.view, of, machine), case.threads)
    size = expected.abs() + z.abs()
    expected = expected if late else expected + z
    expected = torch.where(expected > 0, expected, expected * by_channel(slopes)) + (z if late else 0)
    y, size = (t.permute(0, 2, 3, 4, 1).numpy() for t in (expected, size))
    # Numbers, their mean and 1 / deviation are each rounded a few times, not: multiplied by mean / deviation.
    steepest = max(1, float(np.abs(slopes).max()))
    assert_close(result.check(), y, 16 * EPS * steepest * (1 + size + np.abs(offset)), f"{case} {groups}")


@every_machine
@SETTINGS
@given(inputs, st.booleans())
def test_channels_first(machine: Machine, case: Input, cut: bool) -> None:
    source = Buffer(case.size, *case.wider, case.x)
    n, d, h, w, c = case.size
    x, of = source.view, case.x
    if cut and h > 1:  # rows that are not all equally far apart
        x, of, h = View(x.address, x.strides, (n, d, h - 1, w, c)), of[:, :, : h - 1], h - 1
    target = Buffer((n, 1, 1, 1, c * d * h * w), 0, 0)
    run(channels_first(x, target.view, machine), case.threads)
    np.testing.assert_array_equal(target.check().reshape(n, c, d, h, w), of.transpose(0, 4, 1, 2, 3))


@pytest.mark.parametrize("wider", [0, 3])
def test_large_activations_in_pieces(wider: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, 9, 10, 11, 33)).astype(np.float32)
    source, target = Buffer(x.shape, 0, wider, x), Buffer(x.shape, 0, wider)
    made = copy(source.view, target.view, NEON)
    assert [step.items for step in made.steps] == [90 if wider else 4]
    run(made, 2)
    np.testing.assert_array_equal(target.check(), x)


def test_kernels_lower_to_another_machine() -> None:
    x, vector = Buffer((1, 2, 2, 2, 3), 0, 0).view, np.ones(3, np.float32)
    made = [
        copy(x, x, NEON),
        binary("add", x, x, x, NEON, RELU),
        binary("minimum", x, x.some(0, 1), x, NEON),
        affine(x, x, vector, vector, NEON, RELU),
        pointwise(x, x, NEON, SLOPES),
        softmax(x, x, NEON),
        normalise(x, None, x, Normalise(1, 1e-5, vector, vector, SLOPES), NEON),
        normalise(x, x, x, Normalise(1, 1e-5, vector, vector, SLOPES, late=True), NEON),
        channels_first(x, x, NEON),
    ]
    assert_lowers(made)
