"""exp, erf, tanh and the activations made of them, as vector code; within a few units in the last place."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lrw_kernels.codegen.loops import merge
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.vector import I64, Vectors
from lrw_kernels.cpu.polynomials import (
    FAR,
    SHRINK,
    TANH_SMALL,
    exp_polynomial,
    expm1_polynomial,
    log1p_polynomial,
    tail_polynomial,
    tanh_polynomial,
)
from lrw_kernels.network.operators import BY_CHANNEL, FUNCTIONS

# float32: 1.5 * 2^23 added leaves the nearest integer in the low bits; exponents start at bit 23, with 127 for 2^0
ROUND = 1.5 * 2**23
MANTISSA, BIAS = 23, 127
LOWEST, HIGHEST = -110.0, 90.0  # beyond, exp is 0 and infinity
NOTHING = -20.0  # up to here exp(x) - 1 is -1
LN2_HIGH = float(np.float32(math.log(2)))
GELU_CUBIC = 0.044715  # of the tanh form, as published


def polynomial(v: Vectors, coefficients: Sequence[float], x: Any) -> Any:
    """Horner's rule, from the lowest power."""
    total = v.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = v.fma(total, x, v.constant(c))
    return total


def exp(v: Vectors, x: Any) -> Any:
    """e to the power of x: 2^n exp(r). 2^n is two factors, because n reaches below and above float32's exponents."""
    b = v.builder
    n, r = _reduced(v, v.at_most(v.at_least(x, v.constant(LOWEST)), v.constant(HIGHEST)))
    half = b.ashr(n, v.integers(1))
    result = polynomial(v, exp_polynomial(), r)
    for part in (half, b.sub(n, half)):
        result = b.fmul(result, _power_of_two(v, part))
    return result


def _expm1(v: Vectors, x: Any) -> Any:
    """exp(x) - 1 of x up to 0: 2^n (exp(r) - 1) + (2^n - 1), which nowhere cancels."""
    n, r = _reduced(v, v.at_least(x, v.constant(NOTHING)))
    power = _power_of_two(v, n)
    less = v.fma(v.builder.fmul(r, r), polynomial(v, expm1_polynomial(), r), r)
    return v.fma(power, less, v.sub(power, v.constant(1.0)))


def _reduced(v: Vectors, x: Any) -> tuple[Any, Any]:
    """(n, r) of x = n log 2 + r: n whole, in integers, and r between half of log 2 to both sides of 0."""
    shifted = v.fma(x, v.constant(1 / math.log(2)), v.constant(ROUND))
    n = v.sub(shifted, v.constant(ROUND))
    r = v.fma(n, v.constant(LN2_HIGH - math.log(2)), v.fma(n, v.constant(-LN2_HIGH), x))
    return v.builder.sub(v.bits(shifted), v.bits(v.constant(ROUND))), r


def _power_of_two(v: Vectors, n: Any) -> Any:
    """2^n, of integers that are exponents of float32."""
    return v.of_bits(v.builder.shl(v.builder.add(n, v.integers(BIAS)), v.integers(MANTISSA)))


def relu(v: Vectors, x: Any) -> Any:
    """max(x, 0), keeping NaN."""
    return v.at_least(x, v.constant(0.0))


def leaky_relu(v: Vectors, x: Any, slope: Any) -> Any:
    """x, or below 0 the slope times x."""
    return v.builder.select(v.builder.fcmp_ordered(">", x, v.constant(0.0)), x, v.builder.fmul(slope, x))


def sigmoid(v: Vectors, x: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _times_sigmoid(v, v.constant(1.0), x)


def silu(v: Vectors, x: Any) -> Any:
    """x sigmoid(x)."""
    return _times_sigmoid(v, x, x)


def gelu_tanh(v: Vectors, x: Any) -> Any:
    """x (1 + tanh(c (x + a x^3))) / 2, which is x sigmoid(2 c (x + a x^3)); c = sqrt(2 / pi)."""
    b, double = v.builder, 2 * math.sqrt(2 / math.pi)
    inner = b.fmul(x, v.fma(b.fmul(x, x), v.constant(double * GELU_CUBIC), v.constant(double)))
    return _times_sigmoid(v, x, inner)


def gelu(v: Vectors, x: Any) -> Any:
    """x Phi(x), Phi the normal distribution, (1 + erf(x / sqrt 2)) / 2; below 0 by its tail, where 1 + erf cancels."""
    b, one = v.builder, v.constant(1.0)
    size = v.at_most(v.each("fabs", x), v.constant(FAR))
    square = b.fmul(size, size)
    rounding = v.fma(size, size, v.neg(square))
    u = b.fdiv(v.constant(SHRINK), v.add(size, v.constant(SHRINK)))
    scaled = b.fmul(u, polynomial(v, tail_polynomial(), u))
    scaled = v.fma(scaled, b.fmul(rounding, v.constant(-0.5)), scaled)  # exp(-rounding / 2) is 1 - rounding / 2
    tail = b.fmul(scaled, exp(v, b.fmul(square, v.constant(-0.5))))
    return b.fmul(x, b.select(b.fcmp_ordered(">=", x, v.constant(0.0)), v.sub(one, tail), tail))


def tanh(v: Vectors, x: Any) -> Any:
    """Odd polynomial near 0, through exp elsewhere."""
    b, size, one = v.builder, v.each("fabs", x), v.constant(1.0)
    square = b.fmul(x, x)
    small = v.fma(b.fmul(x, square), polynomial(v, tanh_polynomial(), square), x)
    below = b.fdiv(v.constant(2.0), v.add(exp(v, v.add(size, size)), one))
    large = v.each("copysign", v.sub(one, below), x)
    return b.select(b.fcmp_ordered("<", size, v.constant(TANH_SMALL)), small, large)


def mish(v: Vectors, x: Any) -> Any:
    """x tanh(log(1 + e)), e = exp(x), which is x (e^2 + 2 e) / (e^2 + 2 e + 2); above 0 both times exp(-2 x)."""
    b, above, two = v.builder, v.builder.fcmp_ordered(">=", x, v.constant(0.0)), v.constant(2.0)
    e = exp(v, v.neg(v.each("fabs", x)))
    top = b.select(above, v.fma(two, e, v.constant(1.0)), v.fma(e, e, v.add(e, e)))
    rest = b.select(above, b.fmul(v.add(e, e), e), two)
    return b.fmul(x, b.fdiv(top, v.add(top, rest)))


def hardsigmoid(v: Vectors, x: Any) -> Any:
    """(x + 3) / 6 between 0 and 1."""
    return v.builder.fmul(clamp(v, v.add(x, v.constant(3.0)), v.constant(0.0), v.constant(6.0)), v.constant(1 / 6))


def hardswish(v: Vectors, x: Any) -> Any:
    """x times (x + 3) / 6 between 0 and 1."""
    return v.builder.fmul(x, hardsigmoid(v, x))


def elu(v: Vectors, x: Any, below: Any, above: Any, rate: Any) -> Any:
    """above x, or below 0 below (exp(rate x) - 1)."""
    b = v.builder
    low = b.fmul(below, _expm1(v, b.fmul(rate, x)))
    return b.select(b.fcmp_ordered(">", x, v.constant(0.0)), b.fmul(above, x), low)


def softplus(v: Vectors, x: Any, beta: Any, threshold: Any) -> Any:
    """log(1 + exp(u)) / beta, u = beta x, by exp(-|u|), so that nothing overflows; x where u is above the threshold."""
    b = v.builder
    u = b.fmul(beta, x)
    e = exp(v, v.neg(v.each("fabs", u)))
    total = v.fma(e, polynomial(v, log1p_polynomial(), e), v.at_least(u, v.constant(0.0)))
    return b.select(b.fcmp_ordered(">", u, threshold), x, b.fdiv(total, beta))


def threshold(v: Vectors, x: Any, threshold: Any, value: Any) -> Any:
    """x, or the value where x is not above the threshold."""
    return v.builder.select(v.builder.fcmp_ordered("<=", x, threshold), value, x)


def clamp(v: Vectors, x: Any, low: Any, high: Any) -> Any:
    """max(x, low), then min with high, keeping NaN."""
    return v.at_most(v.at_least(x, low), high)


def absolute(v: Vectors, x: Any) -> Any:
    """x without its sign."""
    return v.each("fabs", x)


def sqrt(v: Vectors, x: Any) -> Any:
    """The square root."""
    return v.each("sqrt", x)


def _times_sigmoid(v: Vectors, factor: Any, x: Any) -> Any:
    """factor / (1 + exp(-x)), by exp(-|x|), so that nothing overflows."""
    b = v.builder
    e = exp(v, v.neg(v.each("fabs", x)))
    above = b.select(b.fcmp_ordered(">=", x, v.constant(0.0)), factor, b.fmul(factor, e))
    return b.fdiv(above, v.add(v.constant(1.0), e))


def smaller(v: Vectors, a: Any, b: Any) -> Any:
    """min(a, b), NaN where either is."""
    return v.neg(v.larger(v.neg(a), v.neg(b)))


BINARY: dict[str, Callable[[Vectors, Any, Any], Any]] = {
    "add": lambda v, x, z: v.add(x, z),
    "subtract": lambda v, x, z: v.sub(x, z),
    "subtract_from": lambda v, x, z: v.sub(z, x),
    "multiply": lambda v, x, z: v.builder.fmul(x, z),
    "divide": lambda v, x, z: v.builder.fdiv(x, z),
    "divide_into": lambda v, x, z: v.builder.fdiv(z, x),
    "maximum": lambda v, x, z: v.larger(x, z),
    "minimum": smaller,
}
"""What is made of two numbers, by name: (vectors, x, z) -> their values."""

POINTWISE: dict[str, Callable[..., Any]] = {
    "abs": absolute,
    **{
        function.__name__: function
        for function in (
            *(relu, leaky_relu, gelu, gelu_tanh, sigmoid, tanh, silu, mish),
            *(hardsigmoid, hardswish, elu, softplus, threshold, clamp, exp, sqrt),
        )
    },
}
"""Functions by name: (vectors, x, parameters as `network.operators.FUNCTIONS` has them) -> the function's values."""


def followed(v: Vectors, function: str, values: Sequence[Any], after: Any, parameters: Any) -> list[Any]:
    """The `function` of each of `values`, which are some channels of pixels, where `after` (i64) is not 0; else they.
    `parameters` is the address of its numbers; of BY_CHANNEL's, of those of these channels."""
    b = v.builder
    before = b.block
    with b.if_then(b.icmp_signed("!=", after, I64(0))):
        if function == BY_CHANNEL:
            slopes = v.load(parameters)
            results = [leaky_relu(v, value, slopes) for value in values]
        else:
            given = loaded(v, function, parameters)
            results = [POINTWISE[function](v, value, *given) for value in values]
        applied = b.block
    return merge(b, [(values, before), (results, applied)])


def loaded(v: Vectors, function: str, address: Any) -> list[Any]:
    """The parameters of one of POINTWISE, from an address on, each as a vector of its own."""
    return [v.splat(v.load_scalar(address, i * FLOAT)) for i in range(len(FUNCTIONS[function]))]
