"""The elementary functions of the vector code against float64, over all of float32."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.functions import POINTWISE
from lrw_kernels.cpu.operators.rows import pointwise
from lrw_kernels.cpu.step import view
from lrw_kernels.network.operators import FUNCTIONS, Pointwise
from verify.programs.errors import UNITS
from verify.strategies import Array
from verify.unit.cpu.operators import EPS, assert_lowers, every_machine, run

SMALLEST = 2.0**-149
PARAMETERS = {  # that float32 has exactly
    "leaky_relu": (0.3125,),
    "elu": (1.5, 1.25, 0.75),
    "softplus": (0.75, 20.0),
    "threshold": (0.25, -2.0),
    "clamp": (-0.75, 6.0),
}
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, SMALLEST, -SMALLEST, 1e-40, -1e-40, 3.4e38, -3.4e38]


def numbers() -> Array:
    """All magnitudes of float32, densely where functions bend, and what is special."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = [np.linspace(-width, width, 40_001, dtype=np.float32) for width in (1, 12, 130)]
    return np.concatenate([bits[np.isfinite(bits)], *near, np.array(SPECIAL, np.float32)])


def computed(function: str, x: Array, machine: Machine) -> Array:
    y = np.empty_like(x)
    source, target = (view(of.ctypes.data, (1, 1, 1, 1, x.size)) for of in (x, y))
    run(pointwise(source, target, machine, Pointwise(function, PARAMETERS.get(function, ()))))
    return y.astype(np.float64)


def gelu(x: Array) -> Array:
    """x Phi(x) by erfc, because 1 + erf cancels even in float64."""
    return x * np.array([math.erfc(-t / math.sqrt(2)) / 2 for t in x])


def gelu_tanh(x: Array) -> Array:
    return x * torch.sigmoid(torch.from_numpy(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))).numpy()


def elu(x: Array) -> Array:
    below, above, rate = PARAMETERS["elu"]
    return np.where(x > 0, above * x, below * np.expm1(rate * x))


def softplus(x: Array) -> Array:
    """log(1 + exp(u)) / beta, u = beta x, by exp(-|u|): exp of a large u is infinity in float64 too."""
    beta, threshold = PARAMETERS["softplus"]
    u = beta * x
    return np.where(u > threshold, x, (np.maximum(u, 0) + np.log1p(np.exp(-np.abs(u)))) / beta)


TORCH: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, *PARAMETERS["leaky_relu"]),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": lambda x: x * (x + 3).clamp(0, 6) / 6,  # torch's own gives 0 for -infinity
    "hardsigmoid": F.hardsigmoid,
    "threshold": lambda x: F.threshold(x, *PARAMETERS["threshold"]),
    "clamp": lambda x: x.clamp(*PARAMETERS["clamp"]),
    "abs": torch.abs,
    "exp": torch.exp,
    "sqrt": torch.sqrt,
}
EXPECTED: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "elu": elu,
    "softplus": softplus,
    **{name: lambda x, function=function: function(torch.from_numpy(x)).numpy() for name, function in TORCH.items()},
}


# What is rounded before exp takes it, of |x|; such a rounding errs by argument * eps.
ARGUMENTS: dict[str, Callable[[Array], Array]] = {
    "gelu_tanh": lambda x: 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3),
    "softplus": lambda x: PARAMETERS["softplus"][0] * x,
}


def test_every_function_has_an_expectation() -> None:
    assert EXPECTED.keys() == POINTWISE.keys() == FUNCTIONS.keys() == UNITS.keys() - {"prelu"}


@every_machine
@pytest.mark.parametrize("function", sorted(POINTWISE))
def test_functions_err_by_a_few_units_in_the_last_place(function: str, machine: Machine) -> None:
    x = numbers()
    wide = x.astype(np.float64)
    actual = computed(function, x, machine)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = EXPECTED[function](wide)
        expected = np.where(np.abs(expected) > 3.4028236e38, np.copysign(np.inf, expected), expected)
        argument = ARGUMENTS.get(function, np.zeros_like)(np.abs(wide))
    there = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~there], expected[~there])  # NaN and infinities
    relative = UNITS[function] * EPS + 2 * EPS * np.minimum(argument, 110)
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
    made = [
        pointwise(view(0, size), view(0, size), NEON, Pointwise(name, PARAMETERS.get(name, ())))
        for name in sorted(POINTWISE)
    ]
    assert_lowers(made)
