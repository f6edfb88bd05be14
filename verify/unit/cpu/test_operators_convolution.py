"""Convolution, plain and transposed, any stride, padding, dilation, groups; channels of wider buffers."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import AVX2, AVX512, NEON, Machine, host
from lrw_kernels.cpu import layout
from lrw_kernels.cpu.operators.convolution import convolution
from lrw_kernels.cpu.operators.transposed import transposed
from lrw_kernels.cpu.step import Epilogue, Steps
from verify.strategies import Array
from verify.tolerances import assert_close
from verify.unit.cpu.operators import (
    EPS,
    Buffer,
    Triple,
    assert_lowers,
    followed,
    from_torch,
    functions,
    run,
    to_torch,
    triples,
)

SETTINGS = settings(max_examples=20)
NO_CACHE = replace(host(), l2=0)  # which keeps no weights, so that patches are gathered
every_way = pytest.mark.parametrize("machine", [NEON, AVX2, host(), NO_CACHE], ids=["neon", "avx2", "host", "patches"])


@dataclass(frozen=True)
class Layer:
    """A convolution on an input of its own, with room for other channels beside those of input and output."""

    batch: int
    size: Triple
    channels: tuple[int, int]  # of a group
    groups: int
    kernel: Triple
    stride: Triple
    padding: Triple
    dilation: Triple
    wider: tuple[int, int, int]
    bias: bool
    residual: bool
    after: str
    threads: int
    seed: int

    def numbers(self, stream: int, *shape: int) -> Array:
        """Standard normal float32."""
        return np.random.default_rng([self.seed, stream]).standard_normal(shape).astype(np.float32)

    @property
    def weight(self) -> Array:
        """[kd, kh, kw, Cin / groups, Cout]."""
        cin, cout = self.channels
        return self.numbers(0, *self.kernel, cin, cout * self.groups)

    @property
    def options(self) -> dict[str, object]:
        """What both kinds of convolution take."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kind = draw(st.sampled_from(["dense", "dense", "grouped", "depthwise", "few"]))
    many = draw(st.integers(2, 37))
    groups = {"dense": 1, "grouped": draw(st.integers(2, 3)), "depthwise": many, "few": many}[kind]
    sizes = st.sampled_from([1, 2, 3, 4, 5, 8, 16, 17, 31, 48, 70])
    few = draw(st.sampled_from([2, 4, 8]))  # of a group, as many in as out
    channels = {"depthwise": (1, 1), "few": (few, few)}.get(kind) or (draw(sizes), draw(sizes))
    return Layer(
        draw(st.integers(1, 2)),
        draw(triples(1, 7)),
        channels,
        groups,
        draw(triples(1, 4)),
        draw(triples(1, 3)),
        draw(triples(0, 3)),
        draw(st.sampled_from([(1, 1, 1), (1, 1, 1), (1, 2, 1), (2, 1, 3)])),
        draw(st.tuples(*[st.sampled_from([0, 0, 1, 5])] * 3)),
        draw(st.booleans()),
        draw(st.booleans()),
        draw(functions),
        draw(st.sampled_from([1, 2])),
        draw(st.integers(0, 2**32 - 1)),
    )


def linear(cin: int, cout: int) -> Layer:
    ones = (1, 1, 1)
    return Layer(1, ones, (cin, cout), 1, ones, ones, (0, 0, 0), ones, (0, 0, 0), True, False, "relu", 2, 0)


def stem(beside: int) -> Layer:
    """A first layer: few channels in, long sums, items of many pixels."""
    ones, wider = (1, 1, 1), (0, beside, 0)
    return Layer(2, (13, 14, 15), (3, 20), 1, (7, 6, 5), (1, 1, 2), (3, 2, 1), ones, wider, True, True, "prelu", 2, 0)


def long(size: Triple, stride: Triple) -> Layer:
    """Lines along each axis that are no whole number of blocks, vectors of channels and what is left of them."""
    three, ones, wider = (3, 3, 3), (1, 1, 1), (2, 5, 3)
    return Layer(2, size, (21, 53), 1, three, stride, ones, ones, wider, True, True, "leaky_relu", 2, 0)


def wide() -> Layer:
    """A small volume of many channels, of which whole stretches of the sum lie on the padding for most pixels."""
    three, ones = (3, 3, 3), (1, 1, 1)
    return Layer(2, (2, 3, 4), (300, 37), 1, three, ones, ones, ones, (2, 5, 3), True, True, "prelu", 2, 0)


def few(channels: int, width: int, step: int = 1) -> Layer:
    """Groups of a few channels, in rows with and without a rest beside several pixels at a time, in wider buffers."""
    size, three, ones = (3, 4, width), (3, 3, 3), (1, 1, 1)
    of, wider = (channels, channels), (5, 3, 1)
    return Layer(2, size, of, 11, three, (1, 1, step), ones, ones, wider, True, True, "prelu", 2, 0)


def doubling(channels: int, taps: int, wider: Triple, stride: Triple = (2, 2, 2)) -> Layer:
    """Outputs as many times as many as the stride is, so that all phases are channels of one pixel."""
    padding, ones = (taps // 2 - 1,) * 3, (1, 1, 1)
    of = (21, channels)
    return Layer(2, (5, 4, 9), of, 1, (taps,) * 3, stride, padding, ones, wider, True, True, "prelu", 2, 0)


def assert_computes(layer: Layer, machine: Machine, transpose: bool) -> None:
    """Steps against torch in float64; sums of n terms err by sqrt(n) eps of their length in root mean square."""
    cin, cout = layer.channels[0] * layer.groups, layer.channels[1] * layer.groups
    x = layer.numbers(1, layer.batch, *layer.size, cin)
    bias = layer.numbers(2, cout) if layer.bias else np.zeros(cout, np.float32)
    expected = reference(x, layer.weight, bias, layer, transpose)
    before, after, beside = layer.wider
    source, target = Buffer(x.shape, before, before + after, x), Buffer(expected.shape, after, after + beside)
    residual = Buffer(expected.shape, beside, beside, layer.numbers(3, *expected.shape))
    if layer.residual:
        expected = expected + residual.numbers
    after, slopes = followed(layer.after, cout)
    expected = np.where(expected > 0, expected, expected * slopes)
    epilogue = Epilogue(bias if layer.bias else None, residual.view if layer.residual else None, after)
    build = transposed if transpose else convolution
    steps = build(source.view, target.view, layer.weight, machine, epilogue=epilogue, **layer.options)
    run(steps, layer.threads)
    terms = layer.channels[0] * int(np.prod(layer.kernel))
    largest = float(np.abs(x).max() * np.abs(layer.weight).max())
    assert_close(target.check(), expected, EPS * max(1, np.abs(slopes).max()) * (6 * largest * terms + 10), str(layer))


def reference(x: Array, weight: Array, bias: Array, layer: Layer, transpose: bool) -> Array:
    first, taps_first, shift = to_torch(x), torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
    if transpose:  # [Cin, Cout / groups, kd, kh, kw]
        blocks = taps_first.permute(3, 4, 0, 1, 2).chunk(layer.groups, 1)
        fields = (layer.stride, layer.padding, 0, layer.groups, layer.dilation)
        sizes = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(layer.size, layer.stride, layer.padding, layer.dilation, layer.kernel, strict=True)
        ]
        assume(min(sizes) >= 1)
        y = torch.nn.functional.conv_transpose3d(first, torch.cat(blocks), shift, *fields)
    else:
        options = (layer.stride, layer.padding, layer.dilation, layer.groups)
        sizes = [
            n + 2 * p - d * (k - 1)
            for n, p, d, k in zip(layer.size, layer.padding, layer.dilation, layer.kernel, strict=True)
        ]
        assume(min(sizes) >= 1)
        y = torch.nn.functional.conv3d(first, taps_first.permute(4, 3, 0, 1, 2), shift, *options)
    return from_torch(y)


@every_way
@SETTINGS
@given(layers())
@example(linear(700, 333))
@example(wide())
@example(long((3, 2, 15), (1, 1, 1)))
@example(long((19, 3, 2), (2, 1, 1)))
@example(long((2, 27, 1), (1, 2, 1)))
@example(stem(0))
@example(stem(1))
@example(few(1, 11))
@example(few(2, 3))
@example(few(4, 9))
@example(few(8, 12, 2))
def test_convolution(machine: Machine, layer: Layer) -> None:
    assert_computes(layer, machine, transpose=False)


DOUBLING = [
    doubling(1, 2, (0, 0, 0)),  # 8 numbers of a vector
    doubling(2, 4, (0, 0, 0)),  # places of 4
    doubling(2, 4, (1, 3, 5)),  # of 2, since nothing lies side by side
    doubling(4, 2, (0, 0, 4)),
    doubling(32, 2, (0, 0, 0)),  # more than a vector in a place
    doubling(80, 2, (0, 0, 16)),
]


@every_way
@SETTINGS
@given(layers())
@example(DOUBLING[0])
@example(DOUBLING[1])
@example(DOUBLING[2])
@example(DOUBLING[3])
@example(DOUBLING[4])
@example(DOUBLING[5])
@example(doubling(3, 2, (0, 0, 0)))
def test_transposed_convolution(machine: Machine, layer: Layer) -> None:
    assert_computes(layer, machine, transpose=True)


@pytest.mark.parametrize("layer", DOUBLING, ids=str)
def test_all_phases_are_one_step(layer: Layer) -> None:
    cin, cout = layer.channels
    size = (layer.batch, *(2 * n for n in layer.size), cout)
    before, _, beside = layer.wider
    source, target = Buffer((layer.batch, *layer.size, cin), 0, 0), Buffer(size, before, before + beside)
    made = transposed(source.view, target.view, layer.weight, AVX512, **layer.options)
    assert len(made.steps) == 1


@pytest.mark.parametrize("shape", [(1, 19, 1), (1, 19, 12), (3, 1, 29), (2, 7, 48), (0, 5, 8)], ids=str)
@pytest.mark.parametrize("element", ["float16", "float32", "float64"])
def test_weights_are_packed_as_kernels_pack_them(shape: tuple[int, int, int], element: str) -> None:
    weights = np.random.default_rng(shape[2]).standard_normal(shape).astype(element)
    packed = layout.panels(weights, NEON)
    expected = np.zeros_like(packed)
    if expected.size:
        layout.pack(weights.ctypes.data, expected.ctypes.data, shape, NEON, element, transposed=False, workers=1)
    np.testing.assert_array_equal(packed, expected)


def test_numbers_beside_the_channels_do_not_matter_nor_does_what_padding_meets() -> None:
    """0 * NaN is NaN: what is padded must be zeros, not whatever lies there."""
    x, weight = np.ones((1, 3, 3, 3, 5), np.float32), np.ones((3, 3, 3, 5, 2), np.float32)
    source, target = Buffer(x.shape, 2, 4, x), Buffer((1, 3, 3, 3, 2), 1, 3)
    run(convolution(source.view, target.view, weight, NEON, padding=(1, 1, 1)))
    inside = np.array([2, 3, 2])
    expected = 5.0 * inside[:, None, None] * inside[:, None] * inside
    np.testing.assert_array_equal(target.check(), np.stack([expected] * 2, -1)[None])


def test_a_linear_layer_shares_out_its_weights() -> None:
    (step,) = linear_steps(256, 1200).steps
    assert step.items > 8


def linear_steps(cin: int, cout: int) -> Steps:
    source, target = Buffer((1, 1, 1, 1, cin), 0, 0), Buffer((1, 1, 1, 1, cout), 0, 0)
    return convolution(source.view, target.view, np.zeros((1, 1, 1, cin, cout), np.float32), NEON)


def test_blocks_that_overlap_add_a_residual_once() -> None:
    """A line of 15 pixels: the second block begins before the first one ends; results lie where the residual was."""
    x, weight = np.ones((1, 1, 1, 15, 3), np.float32), np.ones((1, 1, 1, 3, 4), np.float32)
    source, target = Buffer(x.shape, 0, 0, x), Buffer((1, 1, 1, 15, 4), 1, 2, np.full((1, 1, 1, 15, 4), 0.5))
    made = convolution(source.view, target.view, weight, AVX512, epilogue=Epilogue(residual=target.view))
    (box,) = made.steps[0].job.refers["boxes"]
    assert box.record.pixels % box.record.height > 0
    run(made)
    np.testing.assert_array_equal(target.check(), 3.5)


def test_how_many_threads_share_the_items_does_not_matter() -> None:
    layer = stem(1)
    x = layer.numbers(1, layer.batch, *layer.size, 3)
    results = []
    for threads in (1, 2, 3):
        source, target = Buffer(x.shape, 0, 1, x), Buffer((2, 13, 13, 7, 20), 0, 0)
        made = convolution(source.view, target.view, layer.weight, NEON, **layer.options)
        assert made.steps[0].items > 16
        run(made, threads)
        results.append(target.check())
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])


def test_kernels_lower_to_another_machine() -> None:
    source, target = Buffer((1, 2, 2, 2, 6), 0, 0), Buffer((1, 2, 2, 2, 6), 0, 0)
    made = [
        linear_steps(3, 5),
        convolution(source.view, target.view, np.zeros((1, 1, 1, 6, 6), np.float32), NEON),
        convolution(source.view, target.view, np.zeros((1, 1, 1, 1, 6), np.float32), NEON, groups=6),
    ]
    assert_lowers(made)
