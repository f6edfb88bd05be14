"""The elementary functions of the vector code against float64, over all of float32."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.operators.functions import POINTWISE
from lrw_kernels.cpu.operators.rows import pointwise
from lrw_kernels.cpu.step import view
from verify.strategies import Array
from verify.unit.cpu.operators import EPS, assert_lowers, every_machine, run

SMALLEST = 2.0**-149
SLOPE = 0.3
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, SMALLEST, -SMALLEST, 1e-40, -1e-40, 3.4e38, -3.4e38]


def numbers() -> Array:
    """All magnitudes of float32, densely where functions bend, and what is special."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = [np.linspace(-width, width, 40_001, dtype=np.float32) for width in (1, 12, 130)]
    return np.concatenate([bits[np.isfinite(bits)], *near, np.array(SPECIAL, np.float32)])


def computed(function: str, x: Array, machine: Machine) -> Array:
    y = np.empty_like(x)
    size = (1, 1, 1, 1, x.size)
    run(pointwise(view(x.ctypes.data, size), view(y.ctypes.data, size), machine, function, SLOPE))
    return y.astype(np.float64)


def gelu(x: Array) -> Array:
    """x Phi(x) by erfc, because 1 + erf cancels even in float64."""
    return x * np.array([math.erfc(-t / math.sqrt(2)) / 2 for t in x])


def gelu_tanh(x: Array) -> Array:
    return x * torch.sigmoid(torch.from_numpy(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))).numpy()


EXPECTED: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: torch.relu(torch.from_numpy(x)).numpy(),
    "leaky_relu": lambda x: np.where(x > 0, x, float(np.float32(SLOPE)) * x),
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "sigmoid": lambda x: torch.sigmoid(torch.from_numpy(x)).numpy(),
    "tanh": np.tanh,
    "silu": lambda x: torch.nn.functional.silu(torch.from_numpy(x)).numpy(),
}
# Of the result, in eps; and of what rounding exp's argument does, argument * eps.
UNITS = {"relu": 0, "leaky_relu": 0.5, "gelu": 4, "gelu_tanh": 4, "sigmoid": 2, "tanh": 2, "silu": 3}


def test_every_function_has_an_expectation() -> None:
    assert EXPECTED.keys() == POINTWISE.keys() == UNITS.keys()


@every_machine
@pytest.mark.parametrize("function", sorted(POINTWISE))
def test_functions_err_by_a_few_units_in_the_last_place(function: str, machine: Machine) -> None:
    x = numbers()
    wide = x.astype(np.float64)
    actual = computed(function, x, machine)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = EXPECTED[function](wide)
        expected = np.where(np.abs(expected) > 3.4028236e38, np.copysign(np.inf, expected), expected)
        argument = 2 * math.sqrt(2 / math.pi) * (np.abs(wide) + 0.044715 * np.abs(wide) ** 3)
    there = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~there], expected[~there])  # NaN and infinities
    relative = np.full_like(wide, UNITS[function] * EPS)
    if function == "gelu_tanh":
        relative += 2 * EPS * np.minimum(argument, 110)
    tiny = SMALLEST * (1 + np.minimum(np.abs(np.nan_to_num(wide)), 110))  # exp's own smallest step, times x
    actual, expected, x = actual[there], expected[there], x[there]
    excess = np.abs(actual - expected) / (relative[there] * np.abs(expected) + tiny[there])
    worst = np.argmax(excess)
    assert excess[worst] <= 1, f"{function}({x[worst]:.9g}): {excess[worst]:.3g} times the tolerance"


@pytest.mark.parametrize("function", sorted(POINTWISE))
def test_lanes_do_not_matter(function: str) -> None:
    x = numbers()[-1003:]
    one = [computed(function, x[i : i + 1].copy(), NEON)[0] for i in range(0, x.size, 41)]
    np.testing.assert_array_equal(one, computed(function, x, NEON)[::41])


def test_kernels_lower_to_another_machine() -> None:
    size = (1, 1, 1, 1, 1)
    made = [pointwise(view(0, size), view(0, size), NEON, name) for name in sorted(POINTWISE)]
    assert_lowers(made)
