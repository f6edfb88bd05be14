"""One axis of a Winograd convolution: the exact matrices A, G, B of F(m, r), proved at construction.

For m outputs of an r-tap correlation, y_i = sum_j w_j x_(i+j), with t = m + r - 1 inputs:

    y = A^T [(G w) * (B x)],    A [t, m], G [t, r], B [t, t],    sum_p A[p,i] G[p,j] B[p,k] = [k = i + j]

Every matrix is position-major: row p belongs to coordinate p of the Winograd domain.
Source: Cook-Toom with the point at infinity (Winograd 1980; Lavin & Gray 2016; Barabasz et al. 2018).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, lru_cache
from math import prod, sqrt

import numpy as np
import numpy.typing as npt

from lrw_kernels.untrusted import shown
from lrw_kernels.winograd.points import default_points, format_points, parse_points

Matrix = tuple[tuple[Fraction, ...], ...]
MAX_OUTPUTS = 8
MAX_TAPS = 7


@dataclass(frozen=True)
class Transform:
    """F(m, r) of one axis with its exact matrices.

    `points` are the finite interpolation points, m + r - 2 of them; an axis with m = 1 or r = 1 needs none: its
    products are the plain ones (t = max(m, r)). Raises ValueError when m, r or the points are not accepted.
    """

    m: int
    r: int
    points: tuple[Fraction, ...]
    A: Matrix = field(repr=False, compare=False)
    G: Matrix = field(repr=False, compare=False)
    B: Matrix = field(repr=False, compare=False)

    @staticmethod
    def of(m: int, r: int, points: str | Sequence[Fraction | int | str] | None = None) -> "Transform":
        """F(m, r); `points` None takes the default ones (none at all where m = 1 or r = 1)."""
        _check_size(m, r)
        if points is None:
            chosen = () if min(m, r) == 1 else default_points(m + r - 2)
        else:
            chosen = parse_points(points)
        return _build(m, r, chosen)

    @property
    def t(self) -> int:
        """Inputs per tile, m + r - 1, which is also the number of Winograd positions."""
        return self.m + self.r - 1

    def array(self, name: str, dtype: npt.DTypeLike = np.float64) -> npt.NDArray[np.floating]:
        """`name` in "A", "G", "B" as a float table, each entry rounded once from its exact value."""
        return np.array([[float(v) for v in row] for row in getattr(self, name)], dtype=dtype)

    @cached_property
    def amplification(self) -> float:
        """How much larger rounding noise is than in direct convolution, for white inputs and weights.

        max_i sqrt(sum_p A[p,i]^2 |G_p|^2 |B_p|^2 / r); amplifications of the three axes multiply.
        """
        square = [[float(sum(v * v for v in row)) for row in m] for m in (self.G, self.B)]
        noise = [sum(float(a[i]) ** 2 * g * b for a, g, b in zip(self.A, *square, strict=True)) for i in range(self.m)]
        return sqrt(max(noise) / self.r)

    @cached_property
    def input_work(self) -> tuple[int, int]:
        """Multiplies and adds of B x."""
        return _work(self.B)

    @cached_property
    def output_work(self) -> tuple[int, int]:
        """Multiplies and adds of A^T y."""
        return _work(tuple(zip(*self.A, strict=True)))

    def __str__(self) -> str:
        return f"F({self.m},{self.r})" + (f"[{format_points(self.points)}]" if self.points else "")


def _work(matrix: Matrix) -> tuple[int, int]:
    """Multiplies, by other numbers than 0, 1 and -1, and adds of applying `matrix` to a vector."""
    multiplies = sum(abs(v) not in (0, 1) for row in matrix for v in row)
    return multiplies, sum(max(1, sum(v != 0 for v in row)) - 1 for row in matrix)


def _check_size(m: int, r: int) -> None:
    if not (isinstance(m, int) and 1 <= m <= MAX_OUTPUTS):
        raise ValueError(f"tile: {shown(m)} outputs per axis; accepted are 1 to {MAX_OUTPUTS}")
    if not (isinstance(r, int) and 1 <= r <= MAX_TAPS):
        raise ValueError(f"kernel_size: {shown(r)} taps per axis; accepted are 1 to {MAX_TAPS}")


@lru_cache(maxsize=256)
def _build(m: int, r: int, points: tuple[Fraction, ...]) -> Transform:
    plain = not points and min(m, r) == 1
    if not plain and len(points) != m + r - 2:
        raise ValueError(
            f"points: F({m},{r}) interpolates at {m + r - 2} finite points and infinity, got {len(points)} points"
        )
    matrices = _plain_products(m, r) if plain else _cook_toom(m, r, points)
    _prove(m, r, *matrices)
    return Transform(m, r, points, *matrices)


def _plain_products(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """m = 1 or r = 1: the t = max(m, r) products of the definition, with nothing to interpolate."""
    t = m + r - 1
    eye = tuple(tuple(Fraction(p == k) for k in range(t)) for p in range(t))
    ones = ((Fraction(1),),) * t
    return (ones, eye, eye) if m == 1 else (eye, ones, eye)


def _cook_toom(m: int, r: int, points: tuple[Fraction, ...]) -> tuple[Matrix, Matrix, Matrix]:
    """Evaluate w and y's polynomials at the points; interpolation, transposed, becomes B.

    Row p of B holds the coefficients of prod_(q != p) (x - a_q), that of infinity those of prod_q (x - a_q);
    the Lagrange denominators f_p go into G, their sign into B, so that G starts with a positive entry.
    """
    t = m + r - 1
    a_rows, g_rows, b_rows = [], [], []
    for p, a in enumerate(points):
        others = points[:p] + points[p + 1 :]
        f = prod((a - b for b in others), start=Fraction(1))
        a_rows.append(tuple(a**i for i in range(m)))
        g_rows.append(tuple(a**j / abs(f) for j in range(r)))
        b_rows.append(_pad([c if f > 0 else -c for c in _roots_to_coefficients(others)], t))
    a_rows.append(tuple(Fraction(i == m - 1) for i in range(m)))
    g_rows.append(tuple(Fraction(j == r - 1) for j in range(r)))
    b_rows.append(_pad(_roots_to_coefficients(points), t))
    return tuple(a_rows), tuple(g_rows), tuple(b_rows)


def _roots_to_coefficients(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, lowest power first, of prod (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [s - root * c for s, c in zip(shifted, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def _pad(values: list[Fraction], length: int) -> tuple[Fraction, ...]:
    return tuple(values) + (Fraction(0),) * (length - len(values))


def _prove(m: int, r: int, a: Matrix, g: Matrix, b: Matrix) -> None:
    """Check the identity above in rationals; a failure here is a bug of this file, never of the caller."""
    for i in range(m):
        for j in range(r):
            for k in range(m + r - 1):
                value = sum(ar[i] * gr[j] * br[k] for ar, gr, br in zip(a, g, b, strict=True))
                if value != (k == i + j):
                    raise AssertionError(f"F({m},{r}): identity fails at i={i} j={j} k={k}: {value}")
