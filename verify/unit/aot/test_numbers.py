"""Exported networks compute what the float64 interpreter computes, natively and under qemu, on several threads."""

import numpy as np
import pytest

from lrw_kernels.aot import find_target, run_network
from lrw_kernels.codegen.machine import host
from lrw_kernels.network.operators import Operator
from verify.programs.exported import ARM, HERE, NAMES, NATIVE, WIDE, Builder, case, need
from verify.tolerances import USELESS, assert_close

pytestmark = pytest.mark.slow


def assert_exact(name: str, outputs: tuple[np.ndarray, ...]) -> None:
    for y, (exact, tolerance) in zip(outputs, case(name).expected, strict=True):
        sizes = np.abs(exact).max(axis=(0, 1, 2, 3))
        assert (tolerance <= USELESS * sizes).all(), "the bound itself must mean something"
        assert y.dtype == np.float32
        assert_close(y, exact, tolerance, name)


def assert_equal(actual: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> None:
    for y, of in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(y, of)


def test_every_operator_is_there() -> None:
    kinds = {type(node.operator) for node in case("every").network.nodes}
    assert kinds == set(Operator.__args__)


@pytest.mark.parametrize("name", HERE)
def test_the_native_library_computes_the_network(built: Builder, name: str) -> None:
    need(target=NATIVE)
    assert_exact(name, run_network(built(name, NATIVE), *case(name).inputs))


def test_the_avx_512_library_computes_the_network(built: Builder) -> None:
    need(target=WIDE)
    if host().vector_bytes < find_target(WIDE).machine.vector_bytes:
        pytest.skip("this processor has no AVX-512")
    assert_exact("every", run_network(built("every", WIDE), *case("every").inputs))


@pytest.mark.parametrize("name", NAMES)
def test_the_arm_library_computes_the_network_and_the_same_bits_on_every_core(built: Builder, name: str) -> None:
    need(target=ARM)
    inputs, cpus = case(name).inputs, ("cortex-a53", "cortex-a76")
    small, large = (run_network(built(name, ARM), *inputs, cpu=cpu) for cpu in cpus)
    assert_exact(name, small)
    # Neither contraction nor fast-math: the same IEEE operations in the same order.
    assert_equal(small, large)


@pytest.mark.parametrize("target", [NATIVE, ARM])
@pytest.mark.parametrize("name", ["every", "several", "pruned"])
def test_posix_threads_give_the_bits_of_one(built: Builder, name: str, target: str) -> None:
    need(target=target)
    artifacts, inputs = built(name, target), case(name).inputs
    one = run_network(artifacts, *inputs)
    for threads in (2, 4):
        assert_equal(run_network(artifacts, *inputs, threads=threads), one)
