"""What is done to the channels of one pixel, as vector code: y = f(x, z), softmax, sums."""

from collections.abc import Sequence
from typing import Any

from lrw_kernels.codegen.loops import each_vector, loop
from lrw_kernels.codegen.vector import I32, Vectors
from lrw_kernels.cpu.functions import BINARY, POINTWISE, exp, leaky_relu, loaded
from lrw_kernels.network.operators import BY_CHANNEL

NONE = float("-inf")


def emit_apply(v: Vectors, function: str, arguments: Sequence[Any]) -> None:
    """`count` numbers of y = f(x): `function` is a chain of names, applied from left to right: "copy", those of BINARY
    (of x and z; behind "single" z is one number), "affine" (x scale + shift), "normal" ((x - centre) scale + shift),
    BY_CHANNEL (x, or below 0 its parameter times x), and those of POINTWISE, whose parameters are numbers one after
    the other.

    arguments (i64): x, z, y; scale, shift, centre, parameters (addresses); count.
    """
    x, z, y, scale, shift, centre, parameters, count = arguments
    b, names = v.builder, function.split()
    single = v.splat(v.load_scalar(z)) if "single" in names else None
    given = {name: loaded(v, name, parameters) for name in names if name in POINTWISE}

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        def other(address: Any) -> Any:
            return v.load_lanes(b.add(address, offset), mask)

        value = other(x)
        for name in names:
            if name in POINTWISE:
                value = POINTWISE[name](v, value, *given[name])
            elif name == BY_CHANNEL:
                value = leaky_relu(v, value, other(parameters))
            elif name in BINARY:
                value = BINARY[name](v, value, other(z) if single is None else single)
            elif name == "normal":
                value = v.fma(v.sub(value, other(centre)), other(scale), other(shift))
            elif name == "affine":
                value = v.fma(value, other(scale), other(shift))
        v.store_lanes(value, b.add(y, offset), mask)
        return []

    each_vector(v, count, [], vector)


def emit_softmax(v: Vectors, arguments: Sequence[Any]) -> None:
    """y = exp(x - max x) / its sum, of `count` numbers. arguments (i64): x, y, count."""
    x, y, count = arguments
    b = v.builder

    def largest(offset: Any, mask: Any, carried: list[Any]) -> list[Any]:
        return [v.larger(carried[0], v.load_lanes(b.add(x, offset), mask, NONE))]

    top = v.splat(_across(v, each_vector(v, count, [v.constant(NONE)], largest)[0], v.larger))

    def powers(offset: Any, mask: Any, carried: list[Any]) -> list[Any]:
        power = exp(v, v.sub(v.load_lanes(b.add(x, offset), mask, NONE), top))
        v.store_lanes(power, b.add(y, offset), mask)
        counted = power if mask is None else b.select(mask, power, v.constant(0.0))
        return [v.add(carried[0], counted)]

    total = v.splat(_across(v, each_vector(v, count, [v.constant(0.0)], powers)[0], v.add))

    def shares(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        at = b.add(y, offset)
        v.store_lanes(b.fdiv(v.load_lanes(at, mask), total), at, mask)
        return []

    each_vector(v, count, [], shares)


def _across(v: Vectors, value: Any, combine: Any) -> Any:
    """All lanes put together, as a scalar."""
    half = v.lanes // 2
    while half:
        value = combine(value, v.shuffle(value, value, [(i + half) % v.lanes for i in range(v.lanes)]))
        half //= 2
    return v.builder.extract_element(value, I32(0))


def emit_row_sum(v: Vectors, arguments: Sequence[Any]) -> None:
    """total [count, whole vectors] += the sum over `pixels`, `pitch` apart. arguments (i64): x, pitch, pixels; total;
    count."""
    x, pitch, pixels, total, count = arguments
    b = v.builder

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        at, to = b.add(x, offset), b.add(total, offset)

        def pixel(i: Any, carried: list[Any]) -> list[Any]:
            return [v.add(carried[0], v.load_lanes(b.add(at, b.mul(i, pitch)), mask))]

        v.store(v.add(v.load(to), loop(b, pixels, [v.constant(0.0)], pixel)[0]), to)
        return []

    each_vector(v, count, [], vector)


def emit_row_squares(v: Vectors, arguments: Sequence[Any]) -> None:
    """The same of the differences from `centre`, and of their squares. arguments (i64): x, pitch, pixels; centre,
    total, squares (whole vectors); count."""
    x, pitch, pixels, centre, total, squares, count = arguments
    b = v.builder

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        at, middle = b.add(x, offset), v.load(b.add(centre, offset))

        def pixel(i: Any, carried: list[Any]) -> list[Any]:
            apart = v.sub(v.load_lanes(b.add(at, b.mul(i, pitch)), mask), middle)
            return [v.add(carried[0], apart), v.fma(apart, apart, carried[1])]

        sums = loop(b, pixels, [v.constant(0.0)] * 2, pixel)
        for address, value in zip((total, squares), sums, strict=True):
            to = b.add(address, offset)
            v.store(v.add(v.load(to), value), to)
        return []

    each_vector(v, count, [], vector)
