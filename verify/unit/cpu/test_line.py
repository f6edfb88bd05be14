"""The straight-line arithmetic of one axis: exact, and no more operations than the cost model counts."""

from dataclasses import dataclass
from fractions import Fraction

import pytest

from lrw_kernels.cpu.winograd.line import apply
from lrw_kernels.winograd import Transform
from lrw_kernels.winograd.transform import Matrix

SIZES = [(m, r) for m in (1, 2, 3, 4, 5, 6, 8) for r in (1, 2, 3, 5, 7)]


@dataclass
class Exact:
    """Computes in fractions and counts."""

    spare_adders: bool
    multiplies: int = 0
    adds: int = 0

    def add(self, a: Fraction, b: Fraction) -> Fraction:
        self.adds += 1
        return a + b

    def sub(self, a: Fraction, b: Fraction) -> Fraction:
        self.adds += 1
        return a - b

    def neg(self, a: Fraction) -> Fraction:
        return -a  # a sign in the next fma

    def mul(self, c: Fraction, a: Fraction) -> Fraction:
        self.multiplies += 1
        return c * a

    def fma(self, c: Fraction, a: Fraction, b: Fraction) -> Fraction:
        self.multiplies += 1
        self.adds += 1
        return c * a + b


def matrices(m: int, r: int) -> dict[str, Matrix]:
    axis = Transform.of(m, r)
    both = {"B": axis.B, "A": axis.A}
    return both | {name + "T": tuple(zip(*matrix, strict=True)) for name, matrix in both.items()}


def product(matrix: Matrix, values: list[Fraction]) -> list[Fraction]:
    return [sum((c * x for c, x in zip(row, values, strict=True)), Fraction(0)) for row in matrix]


@pytest.mark.parametrize("spare_adders", [False, True])
@pytest.mark.parametrize(("m", "r"), SIZES)
def test_is_the_matrix_exactly(m: int, r: int, spare_adders: bool) -> None:
    for name, matrix in matrices(m, r).items():
        values = [Fraction(3 * k + 1, k + 2) for k in range(len(matrix[0]))]
        result = apply(matrix, values, [True] * len(matrix), Exact(spare_adders))
        assert [x or 0 for x in result] == product(matrix, values), name


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_missing_values_are_zeros_and_unwanted_ones_are_not_formed(m: int, r: int) -> None:
    for name, matrix in matrices(m, r).items():
        n = len(matrix[0])
        values = [None if k % 2 else Fraction(k + 1) for k in range(n)]
        wanted = [i % 3 == 0 for i in range(len(matrix))]
        result = apply(matrix, values, wanted, Exact(False))
        expected = product(matrix, [x or Fraction(0) for x in values])
        for i, value in enumerate(result):
            assert (value or 0) == (expected[i] if wanted[i] else 0), f"{name} row {i}"


@pytest.mark.parametrize(("m", "r"), SIZES)
def test_shared_sums_never_cost_more_than_the_plain_rows(m: int, r: int) -> None:
    for name, matrix in matrices(m, r).items():
        counted = Exact(False)
        apply(matrix, [Fraction(1)] * len(matrix[0]), [True] * len(matrix), counted)
        plain = sum(c != 0 for row in matrix for c in row) - sum(any(row) for row in matrix)
        assert counted.adds <= plain, name


def test_the_usual_tiles_take_the_operations_we_say() -> None:
    """F(2,3): 4 additions each way. F(4,3): 12 multiplications with 12 additions, and 6 with 10."""
    counts = {}
    for m in (2, 4):
        for name, matrix in matrices(m, 3).items():
            counted = Exact(False)
            apply(matrix, [Fraction(1)] * len(matrix[0]), [True] * len(matrix), counted)
            counts[m, name] = (counted.multiplies, counted.adds)
    assert counts[2, "B"] == (0, 4)
    assert counts[2, "AT"] == (0, 4)
    assert counts[4, "B"] == (12, 12)
    assert counts[4, "AT"] == (6, 10)
