"""Search default interpolation points: for each number of finite points, the symmetric dyadic set with the least noise.

    python -m bench.points [COUNT ...]

The score of a set is the geometric mean of `Transform.amplification` over every F(m, r), 3 <= r <= 7, it serves.
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations
from math import exp, log

from lrw_kernels.winograd import Transform
from lrw_kernels.winograd.points import MAX_FINITE_POINTS, format_points
from lrw_kernels.winograd.transform import MAX_OUTPUTS, MAX_TAPS

MAGNITUDES = [Fraction(n, 8) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32)]


def candidates(count: int) -> Iterator[tuple[Fraction, ...]]:
    """0, pairs +-a and, for an even count, one lone point."""
    for pairs in combinations(MAGNITUDES, (count - 1) // 2):
        paired = (Fraction(0), *(s * a for a in pairs for s in (1, -1)))
        if count % 2:
            yield paired
        else:
            yield from ((*paired, s * a) for a in MAGNITUDES if a not in pairs for s in (1, -1))


def score(points: tuple[Fraction, ...]) -> float:
    """Geometric mean of the amplification over the (m, r) that take this many points."""
    sizes = [(len(points) + 2 - r, r) for r in range(3, MAX_TAPS + 1) if 2 <= len(points) + 2 - r <= MAX_OUTPUTS]
    return exp(sum(log(Transform.of(m, r, points).amplification) for m, r in sizes) / len(sizes))


def main(counts: list[int]) -> None:
    """Print the best set for each count."""
    for count in counts:
        best = min(candidates(count), key=score)
        print(f"{count:2d} points  noise {score(best):10.1f}  {format_points(best)}", flush=True)


if __name__ == "__main__":
    main([int(a) for a in sys.argv[1:]] or list(range(3, MAX_FINITE_POINTS + 1)))
