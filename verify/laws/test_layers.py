"""Laws of a Winograd layer, each on every backend of the table.

- spatial weights: equals direct convolution in float64; a delta kernel shifts
- any weights: linear in x and in U; gradients are the adjoints; shifting x by a tile shifts y by a tile;
  a pruned layer is the layer with zeroed columns; columns add up, whatever the order
"""

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import assume

from lrw.backends.epilogue import Epilogue
from lrw.geometry import Geometry
from lrw.ops import transform_weight
from verify import tolerances
from verify.backends import Subject, on_every_backend
from verify.strategies import Array, Case
from verify.tolerances import assert_close


def direct(x: Array, w: Array, padding: tuple[int, int, int]) -> Array:
    """F.conv3d in float64, [N, D, H, W, C] in and out."""
    y = F.conv3d(torch.as_tensor(x).double().permute(0, 4, 1, 2, 3), torch.as_tensor(w).double(), padding=padding)
    return y.permute(0, 2, 3, 4, 1).numpy()


def transformed(w: Array, case: Case) -> Array:
    """U [T, Cin, Cout] in float64."""
    return transform_weight(torch.as_tensor(w).double(), case.geometry.tile).numpy()


@on_every_backend(dense=True)
def test_equals_direct_convolution(subject: Subject, case: Case) -> None:
    x, w = subject.cast(case.x(), case.w())
    u = transformed(w, case)
    y = subject.forward(x, u, case.geometry)
    assert_close(y, direct(x, w, case.geometry.padding), tolerances.forward(case, x, u, subject.eps), "y")


@on_every_backend(dense=True)
def test_a_delta_kernel_shifts(subject: Subject, case: Case) -> None:
    (x,) = subject.cast(case.x())
    taps = case.geometry.tile.kernel_size
    d, h, w = (case.seed // 7**axis % r for axis, r in enumerate(taps))
    kernel = np.zeros((1, case.cin, *taps))
    kernel[0, 0, d, h, w] = 1
    u = transformed(kernel, case)
    pads = [(p, p) for p in case.geometry.padding]
    padded = np.pad(x[..., :1].astype(np.float64), [(0, 0), *pads, (0, 0)])
    nd, nh, nw = case.output_size
    expected = padded[:, d : d + nd, h : h + nh, w : w + nw]
    assert_close(subject.forward(x, u, case.geometry), expected, tolerances.forward(case, x, u, subject.eps), "y")


@on_every_backend()
def test_linear_in_the_input(subject: Subject, case: Case) -> None:
    a, b, u = subject.cast(case.x(), case.x(stream=1), case.u())
    both = subject.forward(a + 2 * b, u, case.geometry)
    apart = subject.forward(a, u, case.geometry) + 2 * subject.forward(b, u, case.geometry)
    assert_close(both, apart, 2 * tolerances.forward(case, np.abs(a) + 2 * np.abs(b), u, subject.eps), "y")


@on_every_backend()
def test_linear_in_the_weights(subject: Subject, case: Case) -> None:
    x, u, v = subject.cast(case.x(), case.u(), case.u(stream=21))
    both = subject.forward(x, u - 3 * v, case.geometry)
    apart = subject.forward(x, u, case.geometry) - 3 * subject.forward(x, v, case.geometry)
    assert_close(both, apart, 2 * tolerances.forward(case, x, np.abs(u) + 3 * np.abs(v), subject.eps), "y")


@on_every_backend()
def test_input_gradient_is_the_adjoint(subject: Subject, case: Case) -> None:
    x, u, dy = subject.cast(case.x(), case.u(), case.y())
    y, dx = subject.forward(x, u, case.geometry), subject.input_grad(dy, u, case.geometry, case.input_size)
    there = tolerances.inner(dy, tolerances.forward(case, x, u, subject.eps))
    back = tolerances.inner(x, tolerances.input_grad(case, dy, u, subject.eps))
    assert_close(
        np.vdot(y, dy.astype(np.float64)), np.vdot(x.astype(np.float64), dx), there + back, "<Ax, y> - <x, A'y>"
    )


@on_every_backend()
def test_weight_gradient_is_the_adjoint(subject: Subject, case: Case) -> None:
    x, u, dy = subject.cast(case.x(), case.u(), case.y())
    y, du = subject.forward(x, u, case.geometry), subject.weight_grad(x, dy, case.geometry)
    there = tolerances.inner(dy, tolerances.forward(case, x, u, subject.eps))
    back = tolerances.inner(u, tolerances.weight_grad(case, x, dy, subject.eps))
    assert_close(
        np.vdot(y, dy.astype(np.float64)), np.vdot(u.astype(np.float64), du), there + back, "<Au, y> - <u, A'y>"
    )


@on_every_backend()
def test_gradients_equal_autograd_of_direct_convolution(subject: Subject, case: Case) -> None:
    """With spatial weights, dX is the direct convolution's: adjoint in every entry, not only in one inner product."""
    geometry = Geometry(case.geometry.tile, case.geometry.padding)
    dense = Case(geometry, case.batch, case.input_size, case.cin, case.cout, case.seed)
    dy, w = subject.cast(dense.y(), dense.w())
    u = transformed(w, dense)
    wide = torch.as_tensor(dy).double().permute(0, 4, 1, 2, 3)
    shape = (case.batch, case.cin, *case.input_size)
    expected = torch.nn.grad.conv3d_input(shape, torch.as_tensor(w).double(), wide, padding=geometry.padding)
    dx = subject.input_grad(dy, u, geometry, case.input_size)
    tolerance = tolerances.input_grad(dense, dy, u, subject.eps)
    assert_close(dx, expected.permute(0, 2, 3, 4, 1).numpy(), tolerance, "dx")


@on_every_backend()
def test_shifting_by_a_tile_shifts_the_output(subject: Subject, case: Case) -> None:
    """For any weights. One tile of zeros in front, on every axis, moves the output by m; the overlap must agree."""
    x, u = subject.cast(case.x(), case.u())
    m = case.geometry.tile.outputs
    later = np.pad(x, [(0, 0), *((n, 0) for n in m), (0, 0)])
    y, shifted = subject.forward(x, u, case.geometry), subject.forward(later, u, case.geometry)
    d, h, w = m
    assert_close(shifted[:, d:, h:, w:], y, 2 * tolerances.forward(case, x, u, subject.eps), "shifted y")


@on_every_backend()
def test_a_pruned_layer_is_the_layer_with_zeroed_columns(subject: Subject, case: Case) -> None:
    x, u = subject.cast(case.x(), case.u())
    full = np.zeros((case.geometry.tile.positions, case.cin, case.cout), u.dtype)
    full[list(case.geometry.positions)] = u
    dense = Geometry(case.geometry.tile, case.geometry.padding)
    tolerance = 2 * tolerances.forward(case, x, u, subject.eps)
    assert_close(subject.forward(x, u, case.geometry), subject.forward(x, full, dense), tolerance, "y")


@on_every_backend()
def test_columns_add_up_in_any_order(subject: Subject, case: Case) -> None:
    x, u = subject.cast(case.x(), case.u())
    positions = np.array(case.geometry.positions)
    assume(len(positions) > 1)
    chosen = np.random.default_rng(case.seed).permutation(len(positions))
    parts = [np.sort(part) for part in np.array_split(chosen, 2)]
    total = np.zeros((case.batch, *case.output_size, case.cout))
    for part in parts:
        kept = tuple(int(p) for p in positions[part])
        total += subject.forward(x, u[part], Geometry(case.geometry.tile, case.geometry.padding, kept))
    assert_close(total, subject.forward(x, u, case.geometry), 3 * tolerances.forward(case, x, u, subject.eps), "y")


@on_every_backend()
def test_a_final_kept_set_changes_no_result(subject: Subject, case: Case) -> None:
    """Code for just the kept positions does the same operations, in the same order, as code for any."""
    positions, phase = range(case.geometry.tile.positions), case.seed % 2  # few sets: each is code of its own
    kept = tuple(p for p in positions if p * p % 5 > 2 * phase) or (0,)
    geometry = replace(case.geometry, kept=kept)
    x, u = subject.cast(case.x(), case.normal(len(kept), case.cin, case.cout, stream=20))
    fixed = subject.forward(x, u, replace(geometry, fixed=True))
    np.testing.assert_array_equal(fixed, subject.forward(x, u, geometry))


@on_every_backend()
def test_epilogue_is_bias_then_residual_then_relu(subject: Subject, case: Case) -> None:
    x, u, residual = subject.cast(case.x(), case.u(), case.y())
    (bias,) = subject.cast(case.normal(case.cout, stream=40))
    plain = subject.forward(x, u, case.geometry)
    epilogue = Epilogue(torch.as_tensor(bias), torch.as_tensor(residual), relu=True)
    finished = subject.forward(x, u, case.geometry, epilogue)
    largest = np.abs(plain).max() + np.abs(bias).max() + np.abs(residual).max()
    assert_close(finished, np.maximum(plain + bias + residual, 0), 4 * subject.eps * largest, "y")
