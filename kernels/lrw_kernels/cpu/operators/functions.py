"""exp, erf, tanh and the activations made of them, as vector code; within a few units in the last place."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from lrw_kernels.codegen.vector import Vectors
from lrw_kernels.cpu.operators.polynomials import (
    FAR,
    SHRINK,
    TANH_SMALL,
    exp_polynomial,
    tail_polynomial,
    tanh_polynomial,
)

# float32: 1.5 * 2^23 added leaves the nearest integer in the low bits; exponents start at bit 23, with 127 for 2^0
ROUND = 1.5 * 2**23
MANTISSA, BIAS = 23, 127
LOWEST, HIGHEST = -110.0, 90.0  # beyond, exp is 0 and infinity
LN2_HIGH = float(np.float32(math.log(2)))
GELU_CUBIC = 0.044715  # of the tanh form, as published


def polynomial(v: Vectors, coefficients: Sequence[float], x: Any) -> Any:
    """Horner's rule, from the lowest power."""
    total = v.constant(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        total = v.fma(total, x, v.constant(c))
    return total


def exp(v: Vectors, x: Any) -> Any:
    """2^n exp(r), x = n log 2 + r. 2^n is two factors, because n reaches below and above float32's exponents."""
    b = v.builder
    x = v.at_most(v.at_least(x, v.constant(LOWEST)), v.constant(HIGHEST))
    shifted = v.fma(x, v.constant(1 / math.log(2)), v.constant(ROUND))
    n = v.sub(shifted, v.constant(ROUND))
    r = v.fma(n, v.constant(LN2_HIGH - math.log(2)), v.fma(n, v.constant(-LN2_HIGH), x))
    whole = b.sub(v.bits(shifted), v.bits(v.constant(ROUND)))
    half = b.ashr(whole, v.integers(1))
    result = polynomial(v, exp_polynomial(), r)
    for part in (half, b.sub(whole, half)):
        result = b.fmul(result, v.of_bits(b.shl(b.add(part, v.integers(BIAS)), v.integers(MANTISSA))))
    return result


def relu(v: Vectors, x: Any, parameter: Any) -> Any:
    """max(x, 0), keeping NaN."""
    return v.at_least(x, v.constant(0.0))


def leaky_relu(v: Vectors, x: Any, parameter: Any) -> Any:
    """x, or below 0 the parameter times x."""
    slope = v.splat(v.load_scalar(parameter))
    return v.builder.select(v.builder.fcmp_ordered(">", x, v.constant(0.0)), x, v.builder.fmul(slope, x))


def sigmoid(v: Vectors, x: Any, parameter: Any) -> Any:
    """1 / (1 + exp(-x))."""
    return _times_sigmoid(v, v.constant(1.0), x)


def silu(v: Vectors, x: Any, parameter: Any) -> Any:
    """x sigmoid(x)."""
    return _times_sigmoid(v, x, x)


def gelu_tanh(v: Vectors, x: Any, parameter: Any) -> Any:
    """x (1 + tanh(c (x + a x^3))) / 2, which is x sigmoid(2 c (x + a x^3)); c = sqrt(2 / pi)."""
    b, double = v.builder, 2 * math.sqrt(2 / math.pi)
    inner = b.fmul(x, v.fma(b.fmul(x, x), v.constant(double * GELU_CUBIC), v.constant(double)))
    return _times_sigmoid(v, x, inner)


def gelu(v: Vectors, x: Any, parameter: Any) -> Any:
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


def tanh(v: Vectors, x: Any, parameter: Any) -> Any:
    """Odd polynomial near 0, through exp elsewhere."""
    b, size, one = v.builder, v.each("fabs", x), v.constant(1.0)
    square = b.fmul(x, x)
    small = v.fma(b.fmul(x, square), polynomial(v, tanh_polynomial(), square), x)
    below = b.fdiv(v.constant(2.0), v.add(exp(v, v.add(size, size)), one))
    large = v.each("copysign", v.sub(one, below), x)
    return b.select(b.fcmp_ordered("<", size, v.constant(TANH_SMALL)), small, large)


def _times_sigmoid(v: Vectors, factor: Any, x: Any) -> Any:
    """factor / (1 + exp(-x)), by exp(-|x|), so that nothing overflows."""
    b = v.builder
    e = exp(v, v.neg(v.each("fabs", x)))
    above = b.select(b.fcmp_ordered(">=", x, v.constant(0.0)), factor, b.fmul(factor, e))
    return b.fdiv(above, v.add(v.constant(1.0), e))


POINTWISE: dict[str, Callable[[Vectors, Any, Any], Any]] = {
    function.__name__: function for function in (relu, leaky_relu, gelu, gelu_tanh, sigmoid, tanh, silu)
}
