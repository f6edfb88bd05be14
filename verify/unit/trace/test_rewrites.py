"""What docs/arm.md has in place of operators that are not supported is the same function, and is supported."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrw.trace import trace
from verify.programs.interpreter import assert_same
from verify.tolerances import assert_close
from verify.unit.trace.nets import volume

Function = Callable[[nn.Module, Tensor], Tensor]


class Fn(nn.Module):
    """A function, with layers and constants at hand."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.linear, self.first = nn.Conv3d(4, 4, 3, padding=1), nn.Linear(4, 3), nn.Linear(4, 24)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


REWRITES: dict[str, tuple[Function, Function]] = {
    "log sigmoid": (lambda m, x: F.logsigmoid(x), lambda m, x: -1 * F.softplus(-1 * x)),
    "to a volume": (
        lambda m, x: F.linear(x.mean((2, 3, 4)), m.first.weight).unflatten(1, (2, 2, 2, 3)),
        lambda m, x: F.conv_transpose3d(x.mean((2, 3, 4), keepdim=True), m.first.weight.T.reshape(4, 2, 2, 2, 3)),
    ),
    "channels last": (
        lambda m, x: m.linear(x.movedim(1, -1)).movedim(-1, 1),
        lambda m, x: F.conv3d(x, m.linear.weight[:, :, None, None, None], m.linear.bias),
    ),
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewrite_is_the_same_function_and_is_supported(name: str) -> None:
    function, instead = (Fn(f).eval() for f in REWRITES[name])
    x = volume(1, 4, 3, 4, 5)
    with pytest.raises(ValueError, match="cannot be exported"):
        trace(function, x)
    with torch.no_grad():
        y = function.double()(x.double())
        assert_close(instead.double()(x.double()).numpy(), y.numpy(), 1e-12 * float(y.abs().max()), name)
    instead.float()
    assert_same(trace(instead, x), instead, x)
