"""One transform along one axis, as straight-line arithmetic: from an exact matrix to the fewest operations we know.

`apply` walks the matrix once and calls an `Algebra` for every operation, so that the same walk emits vector code,
counts operations or computes exactly in fractions. Interpolation points come in pairs +-a, which make rows (in B and
A) or columns (in their transposes) equal up to signs; such pairs share their sums:

    columns p, q:  M[i,p] x_p + M[i,q] x_q = M[i,p] (x_p +- x_q)
    rows p, q:     y_p = even + odd,  y_q = even - odd
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol, TypeVar

from lrw_kernels.winograd.transform import Matrix

Value = TypeVar("Value")
Row = tuple[Fraction, ...]


class Algebra(Protocol[Value]):
    """The operations a transform is made of.

    `spare_adders`: additions run beside multiplications, so that one multiplication and two additions beat two fmas.
    """

    @property
    def spare_adders(self) -> bool:
        """Whether additions run beside multiplications."""

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""

    def neg(self, a: Value) -> Value:
        """-a."""

    def mul(self, c: Fraction, a: Value) -> Value:
        """c a."""

    def fma(self, c: Fraction, a: Value, b: Value) -> Value:
        """c a + b."""


class Factors:
    """An algebra of nothing that remembers what is multiplied by: fma's factors without their signs."""

    def __init__(self, *, spare_adders: bool) -> None:
        self.spare_adders, self.seen = spare_adders, dict[Fraction, None]()

    def add(self, a: int, b: int) -> int:
        """Nothing."""
        return a

    sub = add

    def neg(self, a: int) -> int:
        """Nothing."""
        return a

    def mul(self, c: Fraction, a: int) -> int:
        """c is remembered."""
        self.seen[c] = None
        return a

    def fma(self, c: Fraction, a: int, b: int) -> int:
        """|c| is remembered."""
        self.seen[abs(c)] = None
        return a


@dataclass(frozen=True)
class Structure:
    """What `apply` shares in a matrix: column pairs, the matrix left on their sums and differences, row pairs."""

    columns: tuple[tuple[int, int], ...]
    rows: Matrix
    pairs: tuple[tuple[int, int], ...]


def apply(
    matrix: Matrix, values: Sequence[Value | None], wanted: Sequence[bool], algebra: Algebra[Value]
) -> list[Value | None]:
    """The `wanted` entries of matrix [rows, n] times values [n]; None stands for a zero nobody computed.

    The operations of an entry do not depend on which others are wanted, and a None gives bit for bit what a computed
    zero would (up to the sign of zeros): a kernel for some positions agrees with the one for all of them.
    """
    shared = structure(matrix)
    inputs: list[Value | None] = list(values)
    for p, q in shared.columns:
        a, b = values[p], values[q]
        inputs[p], inputs[q] = _plus(a, b, algebra), _minus(a, b, algebra)
    outputs: list[Value | None] = [None] * len(matrix)
    paired = {i for pair in shared.pairs for i in pair}
    for i, row in enumerate(shared.rows):
        if wanted[i] and i not in paired:
            outputs[i] = _combine([(c, x) for c, x in zip(row, inputs, strict=True)], algebra)
    for p, q in shared.pairs:
        if wanted[p] or wanted[q]:
            both = wanted[p], wanted[q]
            outputs[p], outputs[q] = _mirror(shared.rows[p], shared.rows[q], inputs, both, algebra)
    return outputs


@lru_cache(maxsize=256)
def structure(matrix: Matrix) -> Structure:
    """The pairs of `matrix`. Columns first: where they pair up, rows of the rest hardly do."""
    columns = tuple(_pairs(tuple(zip(*matrix, strict=True))))
    rows = [list(row) for row in matrix]
    for p, q in columns:
        for row in rows:
            same = row[p] == row[q]
            row[p], row[q] = (row[p], Fraction(0)) if same else (Fraction(0), row[p])
    rest = tuple(tuple(row) for row in rows)
    return Structure(columns, rest, tuple(_pairs(rest)))


def _pairs(lines: Matrix) -> Iterator[tuple[int, int]]:
    """Disjoint pairs of lines that are equal up to signs, equal in one entry and opposite in another at least."""
    free = list(range(len(lines)))
    while free:
        p = free.pop(0)
        for q in free:
            if _mirrored(lines[p], lines[q]):
                free.remove(q)
                yield p, q
                break


def _mirrored(a: Row, b: Row) -> bool:
    if any(abs(x) != abs(y) for x, y in zip(a, b, strict=True)):
        return False
    return {x == y for x, y in zip(a, b, strict=True) if x != 0} == {True, False}


def _mirror(
    row: Row, other: Row, inputs: list[Value | None], wanted: tuple[bool, bool], algebra: Algebra[Value]
) -> list[Value | None]:
    """Both outputs of a row pair, from the half where they agree and the half where they differ in sign."""
    same = [x == y for x, y in zip(row, other, strict=True)]
    even = _combine([(c, x) for c, x, s in zip(row, inputs, same, strict=True) if s], algebra)
    odd = [(c, x) for c, x, s in zip(row, inputs, same, strict=True) if not s]
    if algebra.spare_adders:
        half = _combine(odd, algebra)
        halves = (_plus(even, half, algebra) if wanted[0] else None, _minus(even, half, algebra) if wanted[1] else None)
        return list(halves)
    factor = odd[-1][0]  # out of the sum, which then has a coefficient of one, into the fma that joins the halves
    half = _combine([(c / factor, x) for c, x in odd], algebra)
    first = _combine([(Fraction(1), even), (factor, half)], algebra) if wanted[0] else None
    return [first, _combine([(Fraction(1), even), (-factor, half)], algebra) if wanted[1] else None]


def _combine(terms: Sequence[tuple[Fraction, Value | None]], algebra: Algebra[Value]) -> Value | None:
    """sum c x. A term without multiplication comes first; the order does not depend on which x are None."""
    total: Value | None = None
    for c, x in sorted(terms, key=lambda term: (abs(term[0]) != 1, term[0] != 1)):  # stable
        if c == 0 or x is None:
            continue
        if total is None:
            total = x if c == 1 else algebra.neg(x) if c == -1 else algebra.mul(c, x)
        elif abs(c) == 1:
            total = algebra.add(total, x) if c == 1 else algebra.sub(total, x)
        else:
            total = algebra.fma(c, x, total)
    return total


def _plus(a: Value | None, b: Value | None, algebra: Algebra[Value]) -> Value | None:
    return b if a is None else a if b is None else algebra.add(a, b)


def _minus(a: Value | None, b: Value | None, algebra: Algebra[Value]) -> Value | None:
    if b is None:
        return a
    return algebra.neg(b) if a is None else algebra.sub(a, b)
