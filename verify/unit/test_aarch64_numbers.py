"""Exported layers compute what the reference computes, natively and under qemu, again and from several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lrw_kernels.aarch64.emulate import run_layer
from lrw_kernels.winograd import domain_error
from verify.unit.exported_layers import EVERY_RUN, NATIVE, Builder, Case, Native, need


@pytest.mark.parametrize(("name", "target", "cpu"), EVERY_RUN)
def test_layer_equals_the_reference(built: Builder, name: str, target: str, cpu: str) -> None:
    need(target=target)
    case = built.cases[name]
    y = run_layer(built(name, target), case.x, cpu=cpu)
    assert np.isfinite(y).all()
    exact, spec = case.expected(np.float64), case.spec
    norms = np.linalg.norm(case.u.astype(np.float64), axis=1).max(axis=1)
    eps = float(np.finfo(np.float32).eps)
    bound = domain_error(spec.tile, spec.kept, norms, float(abs(case.x).max()), spec.cin, eps)
    bound += eps * abs(exact).max() if spec.bias else 0
    assert bound < 1e-2 * abs(exact).max(), "the bound itself must mean something"
    assert abs(y - exact).max() <= bound
    # Neither contraction nor fast-math: the same IEEE operations in the same order on every machine.
    np.testing.assert_array_equal(y, case.expected(np.float32))


def test_run_writes_output_and_workspace_and_no_further(built: Builder, native: Native) -> None:
    before = [buffer.copy() for buffer in native.buffers]
    assert native.run(*native.addresses) == 0
    np.testing.assert_array_equal(native.output, built.cases["pruned"].expected(np.float32))
    np.testing.assert_array_equal(native.buffers[0], before[0])
    np.testing.assert_array_equal(native.buffers[2], before[2])
    for buffer, size in zip(native.buffers, native.sizes, strict=True):
        assert (buffer[size:] == 0xFF).all()


def test_a_second_run_starts_afresh(native: Native) -> None:
    native.run(*native.addresses)
    first = native.output.copy()
    assert native.run(*native.addresses) == 0
    np.testing.assert_array_equal(native.output, first)


def test_threads_share_the_library(built: Builder) -> None:
    need(target=NATIVE)
    case = built.cases["pruned"]
    scaled = [Case(case.spec, case.x * np.float32(k), case.u, case.bias) for k in range(1, 5)]
    calls = [Native(built("pruned", NATIVE), each.x) for each in scaled]
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda c: [c.run(*c.addresses) for _ in range(20)], calls))
    assert codes == [[0] * 20] * 4
    for each, one in zip(scaled, calls, strict=True):
        np.testing.assert_array_equal(one.output, each.expected(np.float32))
