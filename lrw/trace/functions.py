"""Functions of every number as nodes, with torch's parameters as the kernels take them."""

from math import inf
from typing import Any

from lrw.trace.site import Activation, Refused, Site, Value, activation, array, constant
from lrw_kernels.network.operators import Pointwise


def relu(at: Site, x: Value) -> Activation:
    """max(x, 0)."""
    return _pointwise(at, x, "relu")


def leaky_relu(at: Site, x: Value, negative_slope: float) -> Activation:
    """x, or x times the slope below 0."""
    return _pointwise(at, x, "leaky_relu", negative_slope)


def prelu(at: Site, x: Value, weight: Value) -> Activation:
    """x, or below 0 x times a slope, a constant: one for all numbers, or one for each channel."""
    source, slopes = activation(x), array(constant(weight, "weight")).ravel().tolist()
    if len(slopes) == 1:
        return _pointwise(at, source, "leaky_relu", *slopes)
    if len(slopes) != source.size[4]:
        raise Refused(f"its weight has {len(slopes)} numbers; accepted are 1 and {source.size[4]}, one a channel")
    return _pointwise(at, source, "prelu", *slopes)


def gelu(at: Site, x: Value, approximate: str) -> Activation:
    """GELU by the error function, or by its approximation with tanh."""
    return _pointwise(at, x, "gelu_tanh" if approximate == "tanh" else "gelu")


def sigmoid(at: Site, x: Value) -> Activation:
    """1 / (1 + exp(-x))."""
    return _pointwise(at, x, "sigmoid")


def tanh(at: Site, x: Value) -> Activation:
    """Hyperbolic tangent."""
    return _pointwise(at, x, "tanh")


def silu(at: Site, x: Value) -> Activation:
    """x sigmoid(x)."""
    return _pointwise(at, x, "silu")


def mish(at: Site, x: Value) -> Activation:
    """x tanh(log(1 + exp(x)))."""
    return _pointwise(at, x, "mish")


def hardswish(at: Site, x: Value) -> Activation:
    """x times (x + 3) / 6 between 0 and 1."""
    return _pointwise(at, x, "hardswish")


def hardsigmoid(at: Site, x: Value) -> Activation:
    """(x + 3) / 6 between 0 and 1."""
    return _pointwise(at, x, "hardsigmoid")


def elu(at: Site, x: Value, alpha: float, scale: float = 1.0, input_scale: float = 1.0) -> Activation:
    """scale times x, or below 0 times alpha (exp(input_scale x) - 1); an input scale above 0."""
    if not input_scale > 0:
        raise Refused(f"input_scale {input_scale}; accepted are numbers above 0")
    return _pointwise(at, x, "elu", alpha * scale, scale, input_scale)


def celu(at: Site, x: Value, alpha: float) -> Activation:
    """x, or below 0 alpha (exp(x / alpha) - 1); alpha above 0."""
    if not alpha > 0:
        raise Refused(f"alpha {alpha}; accepted are numbers above 0")
    return elu(at, x, alpha, input_scale=1 / alpha)


def selu(at: Site, x: Value) -> Activation:
    """ELU of the alpha and scale that keep mean 0 and variance 1, as torch has them."""
    return elu(at, x, alpha=1.6732632423543772848170429916717, scale=1.0507009873554804934193349852946)


def softplus(at: Site, x: Value, beta: float, threshold: float) -> Activation:
    """log(1 + exp(beta x)) / beta, or x where beta x is above the threshold; beta above 0."""
    if not beta > 0:
        raise Refused(f"beta {beta}; accepted are numbers above 0")
    return _pointwise(at, x, "softplus", beta, threshold)


def threshold(at: Site, x: Value, threshold: float, value: float) -> Activation:
    """x, or the value where x is not above the threshold."""
    return _pointwise(at, x, "relu") if threshold == value == 0 else _pointwise(at, x, "threshold", threshold, value)


def clamp(at: Site, x: Value, min: Any = None, max: Any = None) -> Activation:
    """x between two numbers, either of which may be missing."""
    for name, bound in (("min", min), ("max", max)):
        if not isinstance(bound, int | float | None):
            raise Refused(f"its {name} is a tensor; accepted are numbers")
    if min == 0 and max is None:
        return _pointwise(at, x, "relu")
    return _pointwise(at, x, "clamp", -inf if min is None else min, inf if max is None else max)


def hardtanh(at: Site, x: Value, min_val: float, max_val: float) -> Activation:
    """x between two numbers."""
    return clamp(at, x, min_val, max_val)


def relu6(at: Site, x: Value) -> Activation:
    """x between 0 and 6."""
    return clamp(at, x, 0, 6)


def absolute(at: Site, x: Value) -> Activation:
    """x without its sign."""
    return _pointwise(at, x, "abs")


def exp(at: Site, x: Value) -> Activation:
    """e to the power of x."""
    return _pointwise(at, x, "exp")


def sqrt(at: Site, x: Value) -> Activation:
    """The square root; NaN below 0."""
    return _pointwise(at, x, "sqrt")


def _pointwise(at: Site, x: Value, function: str, *parameters: float) -> Activation:
    return at.add(Pointwise(function, tuple(map(float, parameters))), activation(x))
