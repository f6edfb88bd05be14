"""Sums, products and the like as nodes: of two activations, or of one and a constant for each channel."""

import numpy as np
import numpy.typing as npt
import torch

from lrw.trace import functions
from lrw.trace.site import Activation, Refused, Site, Value, activation, array
from lrw_kernels.network.operators import Affine, Array, Binary, BinaryKind


def add(at: Site, x: Value | float, other: Value | float, alpha: float) -> Activation:
    """The sum of two activations, or of one and a constant for each channel."""
    _check_alpha(alpha)
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _binary(at, "add", x, other)
    source, values = (x, other) if isinstance(x, Activation) else (other, x)
    return _affine(at, source, 1, _by_channel(source, values))


def sub(at: Site, x: Value | float, other: Value | float, alpha: float) -> Activation:
    """The difference of two activations, or of one and a constant for each channel, either way round."""
    _check_alpha(alpha)
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _binary(at, "subtract", x, other)
    if isinstance(x, Activation):
        return _affine(at, x, 1, -_by_channel(x, other))
    return _affine(at, other, -1, _by_channel(other, x))


def rsub(at: Site, x: Value | float, other: Value | float, alpha: float) -> Activation:
    """`sub` the other way round."""
    return sub(at, other, x, alpha)


def mul(at: Site, x: Value | float, other: Value | float) -> Activation:
    """The product of two activations, or of one and a constant for each channel."""
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _binary(at, "multiply", x, other)
    source, values = (x, other) if isinstance(x, Activation) else (other, x)
    return _affine(at, source, _by_channel(source, values), 0)


def div(at: Site, x: Value | float, other: Value | float) -> Activation:
    """The quotient of two activations, or of one and a constant for each channel."""
    if isinstance(x, Activation) and isinstance(other, Activation):
        return _binary(at, "divide", x, other)
    return _affine(at, x, 1 / _by_channel(x, other), 0)


def maximum(at: Site, x: Value, other: Value) -> Activation:
    """The larger of two activations."""
    return _binary(at, "maximum", activation(x), activation(other))


def minimum(at: Site, x: Value, other: Value) -> Activation:
    """The smaller of two activations."""
    return _binary(at, "minimum", activation(x), activation(other))


def neg(at: Site, x: Value) -> Activation:
    """Times -1."""
    return _affine(at, x, -1, 0)


def square(at: Site, x: Value) -> Activation:
    """x times x."""
    return mul(at, x, x)


def power(at: Site, x: Value, exponent: Value | float) -> Activation:
    """The square, the square root, or the same again."""
    if not isinstance(exponent, int | float) or exponent not in (2, 0.5, 1):
        raise Refused(f"exponent {exponent}; accepted are 0.5, 1 and 2")
    return activation(x) if exponent == 1 else square(at, x) if exponent == 2 else functions.sqrt(at, x)


def _check_alpha(alpha: float) -> None:
    if alpha != 1:
        raise Refused(f"alpha {alpha}; accepted is 1")


def _binary(at: Site, kind: BinaryKind, x: Activation, other: Activation) -> Activation:
    """A node for both; sizes of 1 stand for all of the other's."""
    if len(x.shape) != len(other.shape):
        raise Refused(f"shapes {list(x.shape)} and {list(other.shape)}; accepted are two of as many axes")
    return at.add(Binary(kind), x, other)


def _affine(at: Site, x: object, scale: npt.ArrayLike, shift: npt.ArrayLike) -> Activation:
    source = activation(x)
    scales, shifts = (np.full(source.size[4], values, np.float32) for values in (scale, shift))
    return at.add(Affine(scales, shifts), source)


def _by_channel(source: object, values: object) -> Array:
    """The constant `values` as one number for each of the channels of `source`."""
    shape, given = activation(source).shape, torch.as_tensor(values, dtype=torch.float32)
    single = (1, shape[1], *(1,) * (len(shape) - 2))
    try:
        return array(given.expand(single).flatten())
    except RuntimeError as error:
        raise Refused(f"by a constant of shape {list(given.shape)}; accepted is one number a channel") from error
