"""Search default interpolation points: for each number of finite points, the symmetric dyadic set with the least noise.

    python -m bench.cpu.points [MOST]

The score of a set is the geometric mean of `Transform.amplification` over every F(m, r), 3 <= r <= 7, it serves.
"""

import sys
from collections.abc import Iterator
from fractions import Fraction
from math import exp, log

from lrw_kernels.winograd import Transform
from lrw_kernels.winograd.points import MAX_FINITE_POINTS, format_points
from lrw_kernels.winograd.transform import MAX_OUTPUTS, MAX_TAPS

MAGNITUDES = [Fraction(n, 8) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 20, 24, 32)]
EXHAUSTIVE = 9  # up to this count every set is tried; beyond, only growths of the best BEAM
BEAM = 24


def search(most: int) -> Iterator[tuple[int, tuple[Fraction, ...]]]:
    """(count, best set) for 3 to `most` points: sets grow by a pair +-a, an even count ends in one lone point."""
    beam: list[tuple[Fraction, ...]] = [(Fraction(0),)]
    for count in range(3, most + 1, 2):
        if count > 3:
            lone = [(*points, s * a) for points in beam for a in MAGNITUDES if a not in points for s in (1, -1)]
            yield count - 1, min(lone, key=score)
        pairs = {(*points, a, -a) for points in beam for a in MAGNITUDES if a not in points}
        grown = {frozenset(points): points for points in pairs}
        beam = sorted(grown.values(), key=score)[: BEAM if count >= EXHAUSTIVE else None]
        yield count, beam[0]


def score(points: tuple[Fraction, ...]) -> float:
    """Geometric mean of the amplification over the (m, r) that take this many points."""
    sizes = [(len(points) + 2 - r, r) for r in range(3, MAX_TAPS + 1) if 2 <= len(points) + 2 - r <= MAX_OUTPUTS]
    return exp(sum(log(Transform.of(m, r, points).amplification) for m, r in sizes) / len(sizes))


def main(most: int) -> None:
    """Print the best set for each count."""
    for count, best in search(most):
        print(f"{count:2d} points  noise {score(best):10.1f}  {format_points(best)}", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MAX_FINITE_POINTS)
