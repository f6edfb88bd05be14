"""The GPU bench's gate: red for what is wrong in any way."""

import pytest
import torch

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
