"""Laws of the plain kernels, each on its own against a NumPy statement with the exact matrices, in float64.

- input, output and filter transform are the sums of their definition, for every origin, padding and kept set
- the two adjoints: <T x, v> = <x, T' v>
- column products are matmul, direct convolution is torch's
- the undecorated bodies (what the AArch64 build lowers) compute what the compiled kernels do

A statement is a sum of products, so its value on absolute factors, times eps and the roundings, bounds the error.
"""

from collections.abc import Callable
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given

from lrw_kernels import reference
from lrw_kernels.reference import kernels
from verify.strategies import Array, Case, Triple, cases
from verify.tolerances import assert_close

EPS = float(np.finfo(np.float64).eps)


def tables(case: Case, name: str) -> list[Array]:
    """`name`'s exact matrices, rounded once."""
    return [np.array([[float(v) for v in row] for row in getattr(a, name)]) for a in case.geometry.tile.axes]


def grid(case: Case) -> Triple:
    """Tiles per axis: ceil((outputs + origin) / m)."""
    tile = case.geometry.tile
    d, h, w = (-((-n - o) // m) for n, o, m in zip(case.output_size, tile.origin, tile.outputs, strict=True))
    return d, h, w


def input_transform(case: Case) -> Callable[..., Array]:
    """V[abc] = sum B[a,i] B[b,j] B[c,k] x[tile * m - origin - padding + ijk]."""

    def statement(b_d: Array, b_h: Array, b_w: Array, x: Array) -> Array:
        tile = case.geometry.tile
        before = [o + p for o, p in zip(tile.origin, case.geometry.padding, strict=True)]
        counts, steps = grid(case), tile.outputs
        spans = [(g - 1) * m + t for g, m, t in zip(counts, steps, tile.inputs, strict=True)]
        after = [max(0, span - b - n) for span, b, n in zip(spans, before, x.shape[1:4], strict=True)]
        wide = np.pad(x, [(0, 0), *zip(before, after, strict=True), (0, 0)])
        windows = np.lib.stride_tricks.sliding_window_view(wide, tile.inputs, axis=(1, 2, 3))
        windows = windows[(slice(None), *(slice(0, (g - 1) * m + 1, m) for g, m in zip(counts, steps, strict=True)))]
        v = np.einsum("ai,bj,ck,ndhwxijk->abcndhwx", b_d, b_h, b_w, windows, optimize=True)
        return v.reshape(tile.positions, -1, x.shape[4])[list(case.geometry.positions)]

    return statement


def output_transform(case: Case) -> Callable[..., Array]:
    """y[tile * m - origin + ijk] = sum over kept abc of A[a,i] A[b,j] A[c,k] M[abc]."""

    def statement(a_d: Array, a_h: Array, a_w: Array, m: Array) -> Array:
        tile, counts = case.geometry.tile, grid(case)
        full = np.zeros((tile.positions, *m.shape[1:]))
        full[list(case.geometry.positions)] = m
        full = full.reshape(*tile.inputs, case.batch, *counts, m.shape[2])
        y = np.einsum("ai,bj,ck,abcndhwx->ndihjwkx", a_d, a_h, a_w, full, optimize=True)
        y = y.reshape(case.batch, *(g * n for g, n in zip(counts, tile.outputs, strict=True)), m.shape[2])
        inside = (slice(o, o + n) for o, n in zip(tile.origin, case.output_size, strict=True))
        return y[(slice(None), *inside)]

    return statement


def filter_transform(case: Case) -> Callable[..., Array]:
    """U[abc] = sum G[a,i] G[b,j] G[c,k] w[ijk]."""

    def statement(g_d: Array, g_h: Array, g_w: Array, w: Array) -> Array:
        u = np.einsum("ai,bj,ck,oxijk->abcxo", g_d, g_h, g_w, w, optimize=True)
        return u.reshape(-1, case.cin, case.cout)[list(case.geometry.positions)]

    return statement


def bound(statement: Callable[..., Array], factors: list[Array], roundings: int) -> Array:
    """Rounding error of both sides: eps times the roundings times the sum of absolute terms."""
    return 2 * EPS * roundings * statement(*map(np.abs, factors))


def steps(case: Case) -> int:
    """Roundings of one separable transform: a sum and a table entry per axis."""
    return sum(t + 2 for t in case.geometry.tile.inputs)


def products(case: Case) -> Array:
    """M or V [K, tiles, Cin], free numbers."""
    return case.normal(case.geometry.columns, case.tiles, case.cin, stream=40)


@given(cases())
def test_input_transform_is_its_definition(case: Case) -> None:
    factors, statement = [*tables(case, "B"), case.x()], input_transform(case)
    v = reference.input_transform(case.x(), case.geometry.tile, case.geometry.padding, case.geometry.kept)
    assert_close(v, statement(*factors), bound(statement, factors, steps(case)), "V")


@given(cases())
def test_output_transform_is_its_definition(case: Case) -> None:
    m = products(case)
    factors, statement = [*tables(case, "A"), m], output_transform(case)
    y = reference.output_transform(m, case.geometry.tile, case.output_size, case.batch, case.geometry.kept)
    assert_close(y, statement(*factors), bound(statement, factors, steps(case)), "Y")


@given(cases())
def test_filter_transform_is_its_definition(case: Case) -> None:
    factors, statement = [*tables(case, "G"), case.w()], filter_transform(case)
    u = reference.filter_transform(case.w(), case.geometry.tile, case.geometry.kept)
    assert_close(u, statement(*factors), bound(statement, factors, steps(case)), "U")


@given(cases())
def test_input_transform_adjoint_is_the_adjoint(case: Case) -> None:
    x, v, g = case.x(), products(case), case.geometry
    there = reference.input_transform(x, g.tile, g.padding, g.kept)
    back = reference.input_transform_adjoint(v, g.tile, g.padding, case.input_size, case.batch, g.kept)
    terms = bound(input_transform(case), [*tables(case, "B"), x], steps(case) + x.size + v.size)
    assert_close(np.vdot(there, v), np.vdot(x, back), np.vdot(terms, np.abs(v)), "<Tx, v> - <x, T'v>")


@given(cases())
def test_output_transform_adjoint_is_the_adjoint(case: Case) -> None:
    m, g = products(case), case.geometry
    y = case.normal(case.batch, *case.output_size, case.cin, stream=41)
    there = reference.output_transform(m, g.tile, case.output_size, case.batch, g.kept)
    back = reference.output_transform_adjoint(y, g.tile, g.kept)
    terms = bound(output_transform(case), [*tables(case, "A"), m], steps(case) + m.size + y.size)
    assert_close(np.vdot(there, y), np.vdot(m, back), np.vdot(terms, np.abs(y)), "<Tm, y> - <m, T'y>")


@given(cases())
def test_column_products_are_matmul(case: Case) -> None:
    factors = [products(case), case.u()]
    expected = np.matmul(*factors)
    assert_close(reference.column_products(*factors), expected, bound(np.matmul, factors, case.cin), "M")


@given(cases())
def test_direct_convolution_is_that_of_torch(case: Case) -> None:
    def statement(x: Array, w: Array) -> Array:
        y = F.conv3d(torch.from_numpy(x).permute(0, 4, 1, 2, 3), torch.from_numpy(w), padding=case.geometry.padding)
        return y.permute(0, 2, 3, 4, 1).numpy()

    factors = [case.x(), case.w()]
    tolerance = bound(statement, factors, case.cin * prod(case.geometry.tile.kernel_size))
    y = reference.direct_conv3d(*factors, case.geometry.padding)
    assert_close(y, statement(*factors), tolerance, "Y")


def whole(*shape: int) -> Array:
    """Small whole numbers, on which every sum is exact in any order."""
    return np.random.default_rng(0).integers(-9, 10, shape).astype(np.float64)


def test_body_of_column_products_is_the_compiled_one() -> None:
    a, b = whole(2, 3, 4), whole(2, 4, 5)
    body, compiled = np.full((2, 2, 3, 5), np.nan)
    kernels.column_products.py_func(a, b, body)
    kernels.column_products(a, b, compiled)
    np.testing.assert_array_equal(body, compiled)
    np.testing.assert_array_equal(body, a @ b)


def test_body_of_direct_conv3d_is_the_compiled_one() -> None:
    x, w, padding = whole(2, 3, 4, 2, 2), whole(2, 3, 1, 2, 3), np.array((1, 1, 0))
    body, compiled = np.full((2, 2, 4, 4, 2, 3), np.nan)
    kernels.direct_conv3d.py_func(x, w, padding, body)
    kernels.direct_conv3d(x, w, padding, compiled)
    np.testing.assert_array_equal(body, compiled)
    assert np.abs(body).max() > 0


def test_body_of_apply_along_is_the_compiled_one() -> None:
    matrix, src = whole(3, 4), whole(2 * 4 * 5)
    body, compiled = np.full((2, 2 * 3 * 5), np.nan)
    kernels.apply_along.py_func(matrix, src, body, 2, 5)
    kernels.apply_along(matrix, src, compiled, 2, 5)
    np.testing.assert_array_equal(body, compiled)
    np.testing.assert_array_equal(body, np.einsum("pk,oki->opi", matrix, src.reshape(2, 4, 5)).ravel())
