"""Every operator, bound in this process on every machine configuration it can run, against the interpreter of networks.

Kernels are generic LLVM code: a configuration for other processors compiles here too, to shorter vectors.
"""

import numpy as np
import pytest

from lrw_kernels.codegen.machine import AVX2, AVX512, MACHINES, Machine, host
from lrw_kernels.program.assemble import Assembly, assemble
from lrw_kernels.program.bind import Bound, placed
from verify.strategies import Array
from verify.tolerances import USELESS, assert_close
from verify.unit.exported_networks import NAMES, case

THREADS = 3
RUNNABLE = [m.name for m in MACHINES.values() if m not in (AVX512, AVX2) or m.vector_bytes <= host().vector_bytes]


def bound(name: str, machine: Machine) -> tuple[Assembly, Bound]:
    assembly = assemble(case(name).network, machine, THREADS)
    return assembly, Bound(assembly, placed(assembly))


def computed(assembly: Assembly, program: Bound, x: Array, workers: int) -> Array:
    y = np.full(assembly.output_size, np.nan, np.float32)
    program.run(np.ascontiguousarray(x).ctypes.data, y.ctypes.data, workers)
    return y


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("name", NAMES)
def test_programs_compute_their_networks(name: str, machine: str) -> None:
    exact, tolerance = case(name).expected
    assert (tolerance <= USELESS * np.abs(exact).max(axis=(0, 1, 2, 3))).all(), "the bound itself must mean something"
    assembly, program = bound(name, MACHINES[machine])
    x = case(name).x
    one = computed(assembly, program, x, 1)
    assert_close(one, exact, tolerance, name)
    for workers in (1, 2, THREADS, THREADS + 4):  # nothing of a run stays, and the bits are those of one thread
        np.testing.assert_array_equal(computed(assembly, program, x, workers), one)


def test_programs_share_their_weights() -> None:
    assembly = assemble(case("unet").network, host(), THREADS)
    weights = placed(assembly)
    first, second = Bound(assembly, weights), Bound(assembly, weights)
    x = case("unet").x
    y = computed(assembly, first, x, 1)
    np.testing.assert_array_equal(computed(assembly, second, 2 * x, 1), computed(assembly, first, 2 * x, 1))
    np.testing.assert_array_equal(computed(assembly, second, x, 1), y)


def test_the_seconds_of_all_steps_are_told() -> None:
    assembly, program = bound("med", host())
    x, y = np.ascontiguousarray(case("med").x), np.empty(assembly.output_size, np.float32)
    times: list[float] = []
    program.run(x.ctypes.data, y.ctypes.data, 1, times)
    assert len(times) == assembly.step_count == sum(layer.details["steps"] for layer in assembly.layers)
    assert min(times) > 0
