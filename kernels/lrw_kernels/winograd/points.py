"""Interpolation points: which rationals a Cook-Toom transform evaluates its polynomials at."""

from collections.abc import Sequence
from fractions import Fraction

# The default set for each number of finite points, t - 1 = m + r - 2: of the nearly symmetric dyadic ones that with the
# smallest `Transform.amplification`, found by `python -m bench.points` (every set up to nine points, a beam beyond).
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


def default_points(count: int) -> tuple[Fraction, ...]:
    """The default `count` finite interpolation points (infinity is always added by the transform).

    Raises ValueError when `count` lies outside 0..13, the range F(1..8, 1..7) needs.
    """
    if count not in _DEFAULT:
        raise ValueError(f"count: no default points for {count} finite points; accepted are 0 to {MAX_FINITE_POINTS}")
    return parse_points(_DEFAULT[count])


def parse_points(text: str | Sequence[Fraction | int | str]) -> tuple[Fraction, ...]:
    """Points from `"0 1 -1 1/2"` or from a sequence of rationals; raises ValueError on anything else or on a repeat."""
    parts = text.split() if isinstance(text, str) else list(text)
    try:
        points = tuple(Fraction(part) for part in parts)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"points: {text!r} is not a list of rationals such as '0 1 -1 1/2'") from error
    if len(set(points)) != len(points):
        raise ValueError(f"points: {format_points(points)!r} names a point twice; interpolation points must differ")
    return points


def format_points(points: Sequence[Fraction]) -> str:
    """The text `parse_points` reads back."""
    return " ".join(str(point) for point in points)
