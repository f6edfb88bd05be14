"""Every operator, bound in this process on every machine configuration it can run, against the interpreter of networks.

Kernels are generic LLVM code: a configuration for other processors compiles here too, to shorter vectors.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.machine import AVX2, AVX512, MACHINES, Machine, host
from lrw_kernels.network.operators import Linear
from lrw_kernels.program.assemble import assemble
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.program import Program
from verify.programs.exported import NAMES, case
from verify.strategies import Array
from verify.tolerances import USELESS, assert_close

THREADS = 3
RUNNABLE = [m.name for m in MACHINES.values() if m not in (AVX512, AVX2) or m.vector_bytes <= host().vector_bytes]


def bound(name: str, machine: Machine) -> tuple[Program, Bound]:
    program = assemble(case(name).network, machine, THREADS)
    return program, Bound(program, placed(program))


def computed(
    program: Program, run: Bound, inputs: Sequence[Array], workers: int, times: list[float] | None = None
) -> list[Array]:
    given, buffers = [*map(np.ascontiguousarray, inputs)], Memory.of(max(1, program.buffer_bytes))
    outputs = [np.full(size, np.nan, np.float32) for size in program.outside[len(given) :]]
    run.run(buffers.address, [array.ctypes.data for array in (*given, *outputs)], workers, times)
    return outputs


def assert_equal(actual: Sequence[Array], expected: Sequence[Array]) -> None:
    for y, of in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(y, of)


@pytest.mark.parametrize("machine", RUNNABLE)
@pytest.mark.parametrize("name", NAMES)
def test_programs_compute_their_networks(name: str, machine: str) -> None:
    program, run = bound(name, MACHINES[machine])
    one = computed(program, run, case(name).inputs, 1)
    for y, (exact, tolerance) in zip(one, case(name).expected, strict=True):
        sizes = np.abs(exact).max(axis=(0, 1, 2, 3))
        assert (tolerance <= USELESS * sizes).all(), "the bound itself must mean something"
        assert_close(y, exact, tolerance, name)
    for workers in (1, 2, THREADS, THREADS + 4):  # nothing of a run stays, and the bits are those of one thread
        assert_equal(computed(program, run, case(name).inputs, workers), one)


def test_programs_share_their_weights() -> None:
    program = assemble(case("unet").network, host(), THREADS)
    weights = placed(program)
    first, second = Bound(program, weights), Bound(program, weights)
    x = case("unet").x
    y = computed(program, first, [x], 1)
    assert_equal(computed(program, second, [2 * x], 1), computed(program, first, [2 * x], 1))
    assert_equal(computed(program, second, [x], 1), y)


def test_weights_of_linear_layers_are_read_in_place_where_that_is_asked_for() -> None:
    network, inputs = case("every").network, case("every").inputs
    weights = [node.operator.weight for node in network.nodes if isinstance(node.operator, Linear)]
    copied, held = (assemble(network, host(), THREADS, in_place=asked) for asked in (False, True))
    assert (len(weights), copied.held) == (2, ())
    assert all(array is weight for array, weight in zip(held.held, weights, strict=True))
    assert len(held.weights) <= len(copied.weights) - sum(weight.nbytes for weight in weights)
    assert_equal(*(computed(made, Bound(made, placed(made)), inputs, 1) for made in (copied, held)))


def test_the_seconds_of_all_steps_are_told() -> None:
    program, run = bound("med", host())
    times: list[float] = []
    computed(program, run, case("med").inputs, 1, times)
    assert len(times) == program.step_count == sum(layer.details["steps"] for layer in program.layers)
    assert min(times) > 0
