"""Laws of the one-dimensional transforms, in exact rationals.

- identity: sum_p A[p,i] G[p,j] B[p,k] = [k = i + j] for every F(m, r), default points or any others
- a tile's text parses back to the tile
- matrices that break the identity are refused
- importance is the RMS response to white noise
"""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.winograd import Tile, Transform, importance
from lrw_kernels.winograd.transform import _prove
from verify.strategies import any_tile


def correlate(transform: Transform, w: list[Fraction], x: list[Fraction]) -> list[Fraction]:
    """A^T [(G w) * (B x)], exactly."""
    gw = [sum(g * v for g, v in zip(row, w, strict=True)) for row in transform.G]
    bx = [sum(b * v for b, v in zip(row, x, strict=True)) for row in transform.B]
    return [sum(row[i] * p * q for row, p, q in zip(transform.A, gw, bx, strict=True)) for i in range(transform.m)]


@pytest.mark.parametrize(("m", "r"), list(product(range(1, 9), range(1, 8))))
def test_default_points_compute_the_correlation_exactly(m: int, r: int) -> None:
    transform = Transform.of(m, r)
    w, x = [Fraction(2 * j + 1, 3) for j in range(r)], [Fraction(k * k - 5, 7) for k in range(m + r - 1)]
    assert correlate(transform, w, x) == [sum(w[j] * x[i + j] for j in range(r)) for i in range(m)]


@given(st.integers(1, 8), st.integers(1, 7), st.data())
def test_any_rational_points_satisfy_the_identity(m: int, r: int, data: st.DataObject) -> None:
    rationals = st.fractions(-4, 4, max_denominator=9)
    points = data.draw(st.lists(rationals, min_size=m + r - 2, max_size=m + r - 2, unique=True))
    t = Transform.of(m, r, points)
    for i, j, k in product(range(m), range(r), range(m + r - 1)):
        total = sum(a[i] * g[j] * b[k] for a, g, b in zip(t.A, t.G, t.B, strict=True))
        assert total == (1 if k == i + j else 0)


@pytest.mark.parametrize("name", ["A", "G", "B"])
@given(st.integers(1, 8), st.integers(1, 7), st.data())
def test_matrices_with_one_wrong_entry_are_refused(name: str, m: int, r: int, data: st.DataObject) -> None:
    transform = Transform.of(m, r)
    matrices = {key: [list(row) for row in getattr(transform, key)] for key in "AGB"}
    row = data.draw(st.sampled_from(matrices[name]))
    row[data.draw(st.integers(0, len(row) - 1))] += 1
    with pytest.raises(AssertionError, match="identity fails"):
        _prove(m, r, *matrices.values())


@given(any_tile())
def test_text_of_a_tile_parses_back(tile: Tile) -> None:
    assert Tile.parse(str(tile)) == tile


@given(any_tile())
def test_importance_is_the_rms_change_of_deleting_a_column(tile: Tile) -> None:
    """F^2 = |A_p|^2 |B_p|^2, summed over a tile's outputs: the response to white noise, per axis in rationals."""
    exact = [
        [float(sum(a * a for a in ra) * sum(b * b for b in rb)) for ra, rb in zip(axis.A, axis.B, strict=True)]
        for axis in tile.axes
    ]
    expected = np.sqrt(np.einsum("i,j,k->ijk", *map(np.array, exact)).ravel())
    np.testing.assert_allclose(importance(tile), expected, rtol=1e-12)


@pytest.mark.parametrize("points", ["0 1", "0 1 1", "0 one -1", "1/0 1 2"])
def test_points_that_are_not_accepted_are_named(points: str) -> None:
    with pytest.raises(ValueError, match="points"):
        Transform.of(2, 3, points)
