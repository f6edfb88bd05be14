"""Polynomials for the elementary functions: derived, as Chebyshev interpolations or series, never typed.

Each has an error below half a unit in float32's last place, of the coefficients' own rounding apart.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial

Coefficients = tuple[float, ...]
HALF_LN2 = math.log(2) / 2
TANH_SMALL = 0.625  # up to here tanh is x + x^3 P(x^2); beyond, 1 - 2 / (exp(2x) + 1) loses nothing
FAR = 15.0  # the normal distribution below -FAR is 0 in float32
SHRINK = 4.0  # k of the tail's variable k / (k + x), on which it is smoothest of 2, 3, 4, 5, 6


@lru_cache(maxsize=1)
def exp_polynomial() -> Coefficients:
    """exp on -log(2)/2..log(2)/2."""
    return _fit(math.exp, -HALF_LN2, HALF_LN2, 6)


@lru_cache(maxsize=1)
def expm1_polynomial() -> Coefficients:
    """P of exp(x) - 1 = x + x^2 P(x), on -log(2)/2..log(2)/2: its series, because differences cancel near 0."""
    return tuple(1 / math.factorial(power + 2) for power in range(7))


@lru_cache(maxsize=1)
def log1p_polynomial() -> Coefficients:
    """P of log(1 + x) = x P(x), on 0..1."""
    return _fit(lambda x: math.log1p(x) / x, 0.0, 1.0, 10)


@lru_cache(maxsize=1)
def tanh_polynomial() -> Coefficients:
    """P of tanh(x) = x + x^3 P(x^2), up to TANH_SMALL."""

    def ratio(square: float) -> float:
        x = math.sqrt(square)
        return (math.tanh(x) / x - 1) / square

    return _fit(ratio, 0.0, TANH_SMALL**2, 5)


@lru_cache(maxsize=1)
def tail_polynomial() -> Coefficients:
    """P of the normal distribution's tail, Phi(-x) = exp(-x^2 / 2) u P(u) with u = k / (k + x), for 0 <= x <= FAR."""

    def scaled(u: float) -> float:
        t = SHRINK * (1 - u) / u / math.sqrt(2)
        return math.exp(t * t) * math.erfc(t) / 2 / u

    return _fit(scaled, SHRINK / (SHRINK + FAR), 1.0, 10)


def _fit(function: Callable[[float], float], low: float, high: float, degree: int) -> Coefficients:
    """Coefficients, lowest power first, of the Chebyshev interpolant of `function` on low..high."""
    at: Any = np.vectorize(function)
    found = Chebyshev.interpolate(at, degree, domain=[low, high])
    return tuple(float(c) for c in found.convert(kind=Polynomial).coef)
