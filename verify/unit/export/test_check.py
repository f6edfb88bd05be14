"""`compare` of a library with torch: whatever the network does to its input, wraps its output in or gives."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lrw.export import compare
from lrw.export.check import LIMITS
from lrw_kernels.aot.ports import Port
from lrw_kernels.aot.targets import TARGETS

pytestmark = pytest.mark.slow

SIZE = (1, 2, 1, 1, 2)


class Built:
    """What `compare` asks of a library."""

    target = TARGETS["x86_64-linux-gnu"]
    inputs = (Port("input", "input", SIZE),)


class Fn(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


X = torch.tensor([1.0, -2.0, 3.0, -4.0]).reshape(1, 2, 2, 1, 1)
CHANNELS_LAST = np.array([1, 3, -2, -4], np.float32).reshape(SIZE)


def error(monkeypatch: pytest.MonkeyPatch, function: Callable[[Tensor], Any], given: Any) -> float:
    """Of a library that gives `given` [N, D, H, W, C], or what a function makes of its input in that order."""

    def run(built: object, x: Any) -> Any:
        assert np.array_equal(x, CHANNELS_LAST)
        return (given(x) if callable(given) else np.asarray(given, np.float32),)

    monkeypatch.setattr("lrw_kernels.aot.run_network", run)
    before = X.clone()
    how, found = compare(Built(), Fn(function), X)  # type: ignore[arg-type]
    assert how in ("ran natively", "ran under emulation")
    assert torch.equal(X, before)
    return found


@pytest.mark.parametrize("wrapped", [lambda y: y, lambda y: (y,), lambda y: [y], lambda y: {"out": y}])
def test_the_one_tensor_is_compared_whatever_it_is_wrapped_in(
    wrapped: Callable[[Tensor], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert error(monkeypatch, lambda x: wrapped(2 * x), lambda x: 2 * x) == 0
    assert error(monkeypatch, lambda x: wrapped(2 * x), lambda x: 2 * x + 2) == 0.25


def test_a_network_that_writes_into_its_input_gets_one_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert error(monkeypatch, lambda x: x.relu_(), lambda x: np.maximum(x, 0)) == 0


def test_an_output_of_zeros_is_equal_or_infinitely_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert error(monkeypatch, lambda x: 0 * x, np.zeros(SIZE)) == 0
    assert error(monkeypatch, lambda x: 0 * x, np.full(SIZE, 1e-30)) == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_error_that_is_accepted(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for function, given in ((lambda x: x, value), (lambda x: x * value, 1.0), (lambda x: x * value, value)):
        found = error(monkeypatch, function, np.full(SIZE, given))
        assert not found <= LIMITS["float32"]


class Pair(Built):
    inputs = (Port("input_0", "a", SIZE), Port("input_1", "b", SIZE))


def worst(monkeypatch: pytest.MonkeyPatch, *given: Any) -> float:
    """The error of a library that gives these, of a network that gives x + y, a number, and within others x - y."""
    monkeypatch.setattr("lrw_kernels.aot.run_network", lambda _, x, y: tuple(of(x, y) for of in given))
    net = Called(lambda x, more: {"sum": x + more["y"], "number": 3, "others": (None, x - more["y"])})
    return compare(Pair(), net, (X, {"y": 2 * X}))[1]  # type: ignore[arg-type]


class Called(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Any) -> Any:
        return self.function(*given)


def test_of_several_outputs_the_worst_counts_by_its_own_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert worst(monkeypatch, lambda x, y: x + y, lambda x, y: x - y) == 0
    assert worst(monkeypatch, lambda x, y: x + y, lambda x, y: x - y + 1) == 0.25
    assert worst(monkeypatch, lambda x, y: x + y + 3, lambda x, y: x - y + 0.5) == 0.25
    for wrong in range(2):
        given = [lambda x, y: x + y, lambda x, y: x - y]
        given[wrong] = lambda x, y: x * np.nan
        assert math.isnan(worst(monkeypatch, *given))


def test_every_element_has_a_limit() -> None:
    assert {target.element for target in TARGETS.values()} == set(LIMITS)
