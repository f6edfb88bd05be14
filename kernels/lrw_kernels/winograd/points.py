"""Interpolation points: which rationals a Cook-Toom transform evaluates its polynomials at."""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice
from numbers import Rational

from lrw_kernels.untrusted import shown

# The default set for each number of finite points, t - 1 = m + r - 2: of the nearly symmetric dyadic ones that with the
# smallest `Transform.amplification`, found by `python -m bench.cpu.points` (every set to nine points, a beam beyond).
# Dyadic, so that A and B are exact in binary floating point. Three, five and seven points turn out to be the published
# ones: Lavin & Gray (0, +-1), oneDNN (0, +-5/8, +-3/2), wincnn (0, +-1, +-2, +-1/2).
_DEFAULT: dict[int, str] = {
    0: "",
    1: "0",
    2: "0 1",
    3: "0 1 -1",
    4: "0 3/2 -3/2 1/2",
    5: "0 5/8 -5/8 3/2 -3/2",
    6: "0 7/8 -7/8 2 -2 3/8",
    7: "0 1/2 -1/2 1 -1 2 -2",
    8: "0 1/2 -1/2 7/8 -7/8 5/4 -5/4 3",
    9: "0 3/8 -3/8 7/8 -7/8 5/4 -5/4 2 -2",
    10: "0 3/8 -3/8 3/4 -3/4 1 -1 5/2 -5/2 3/2",
    11: "0 3/8 -3/8 3/4 -3/4 1 -1 5/4 -5/4 5/2 -5/2",
    12: "0 3/8 -3/8 5/8 -5/8 7/8 -7/8 5/4 -5/4 2 -2 4",
    13: "0 3/8 -3/8 5/8 -5/8 7/8 -7/8 5/4 -5/4 3/2 -3/2 5/2 -5/2",
}
MAX_FINITE_POINTS = 13
MAX_PART = 999  # larger numbers only add rounding noise
_POINT = re.compile(r"-?[0-9]{1,3}(/[0-9]{1,3})?")


def default_points(count: int) -> tuple[Fraction, ...]:
    """The default `count` finite interpolation points (infinity is always added by the transform).

    Raises ValueError when `count` lies outside 0..13, the range F(1..8, 1..7) needs.
    """
    if count not in _DEFAULT:
        raise ValueError(f"count: no default points for {count} finite points; accepted are 0 to {MAX_FINITE_POINTS}")
    return parse_points(_DEFAULT[count])


def parse_points(text: str | Sequence[Fraction | int | str]) -> tuple[Fraction, ...]:
    """Points from `"0 1 -1 1/2"` or from a sequence of rationals: at most 13, numerators and denominators up to 999.

    Raises ValueError on anything else and on a repeat, before anything is computed from it.
    """
    if isinstance(text, str) and len(text) > MAX_FINITE_POINTS * len("-999/999 "):
        raise _refused(text)
    try:
        parts = list(islice(text.split() if isinstance(text, str) else text, MAX_FINITE_POINTS + 1))
        points = tuple(_point(part) for part in parts)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise _refused(text) from error
    if len(points) > MAX_FINITE_POINTS:
        raise _refused(text)
    if len(set(points)) != len(points):
        raise ValueError(f"points: {format_points(points)!r} names a point twice; interpolation points must differ")
    return points


def _point(part: Fraction | int | str) -> Fraction:
    """One point, of the form its `str` has: exponents and decimals could stand for numbers of any length."""
    if not isinstance(part, str | float | Rational) or (isinstance(part, str) and _POINT.fullmatch(part) is None):
        raise TypeError("no point")
    point = Fraction(part)
    if max(abs(point.numerator), point.denominator) > MAX_PART:
        raise ValueError("out of range")
    return point


def _refused(text: object) -> ValueError:
    accepted = f"at most {MAX_FINITE_POINTS} rationals such as '0 1 -1 1/2', of numbers up to {MAX_PART}"
    return ValueError(f"points: {shown(text)}; accepted are {accepted}")


def format_points(points: Sequence[Fraction]) -> str:
    """The text `parse_points` reads back."""
    return " ".join(str(point) for point in points)
