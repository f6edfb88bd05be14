"""The GPU bench's gate: red for what is wrong in any way."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F

from bench.on_gpu import direct
from bench.on_gpu.layers import Layer
from bench.on_gpu.problem import Problem
from lrw_kernels.triton.precision import Precision

gate = pytest.importorskip("bench.on_gpu.gate", reason="it computes by Triton kernels")

Y = torch.linspace(-1, 1, 1000, dtype=torch.float64)


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (Y.masked_fill(Y > 0.99, float("nan")), "Y holds values nobody wrote"),
        (Y.masked_fill(Y > 0.99, float("inf")), "Y holds values nobody wrote"),
        (Y + 0.2 * (Y > 0.998), "an element of Y is off by 2 times its bound"),
        (1.05 * Y, "Y is off by 0.05 of its norm; the limit is 0.02"),
        (Y[1:], r"Y is \[999\], expected \[1000\]"),
    ],
)
def test_the_gate_is_red_for_what_is_wrong(y: torch.Tensor, said: str) -> None:
    with pytest.raises(gate.Red, match=said):
        gate.judged("Y", y, y, Y, 0.1, 0.02)


def test_the_gate_gives_the_error_of_what_is_right() -> None:
    assert gate.judged("Y", 1.01 * Y, 1.01 * Y, Y, 0.1, 0.02) == pytest.approx(0.01)


@pytest.mark.parametrize(("outputs", "precision"), [(2, "half"), (2, "tf32"), (4, "ieee")])
def test_a_training_step_is_judged_by_all_that_it_gives(outputs: int, precision: Precision) -> None:
    problem = Problem(Layer("small", 16, 32, (4, 6, 6), batch=2), precision, outputs, torch.device("cpu"), 1)
    inner = problem.inputs[0], problem.gradients[0]
    x, dy = (t.permute(0, 4, 1, 2, 3).double() for t in inner)
    w = problem.weight.to(problem.dtype).double()
    exact = direct.trained(partial(F.conv3d, padding=1), x, w, dy)()
    assert gate.training(problem, lambda: exact) < 1e-12
    for wrong, name in enumerate(("Y", "dX", "dW")):
        given = tuple(1.2 * t if i == wrong else t for i, t in enumerate(exact))
        with pytest.raises(gate.Red, match=f"{name} is off by"):
            gate.training(problem, lambda given=given: given)
