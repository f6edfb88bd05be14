"""Networks that write in place give what they give in torch; where somebody else sees it, torch finds the way."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.export import export

import lrw
from lrw.trace.functional import make_functional, name_dropout

X = torch.randn(2, 4, 3, 4, 5, generator=torch.Generator().manual_seed(2))


class Net(nn.Module):
    """A convolution, and what `function` makes of its result, its input and a buffer."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv, self.function = nn.Conv3d(4, 4, 1), function
        self.register_buffer("held", torch.randn(4, 1, 1, 1))

    def forward(self, x: Tensor) -> object:
        return self.function(self.conv(x), x, self.held)


def two(y: Tensor) -> tuple[Tensor, Tensor]:
    before = y * 2
    return before, y.relu_()


SEEN_BY_NOBODY: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "relu": lambda y, x, held: y.relu_(),
    "residual": lambda y, x, held: (y.add_(x)).relu_(),
    "constant": lambda y, x, held: y.mul_(held).add_(1.0),
    "read before": lambda y, x, held: two(y),
    "read after": lambda y, x, held: (y.relu_(), y + 1),
    "with itself": lambda y, x, held: y.add_(y),
    "viewed after": lambda y, x, held: y.relu_().flatten(1),
    "written through the first name": lambda y, x, held: (y.relu_(), y.sub_(0.5), y)[2],
    "what eval mode leaves": lambda y, x, held: (nn.functional.dropout(y, 0.5, False).relu_(), y)[1],
    "clamped": lambda y, x, held: y.clamp_(-0.5, 0.5),
}
SEEN_BY_OTHERS: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "a view": lambda y, x, held: (y.flatten(1), y.relu_())[0],
    "a part": lambda y, x, held: (y[:, :2], y.relu_())[0],
    "through a view": lambda y, x, held: (y[:, :2].relu_(), y)[1],
    "a chunk": lambda y, x, held: (y.chunk(2, 1)[0].relu_(), y)[1],
    "the input": lambda y, x, held: (x.relu_(), y)[1],
    "a buffer": lambda y, x, held: y + held.add_(1.0),
    "statistics": lambda y, x, held: nn.functional.batch_norm(y, held.flatten(), held.flatten().exp(), training=True),
    "a result that eval mode leaves": lambda y, x, held: (
        nn.functional.dropout(y, 0.5, False),
        y[:, :2].relu_(),
    )[0],
    "another type": lambda y, x, held: y.add_(held.double()),
}


@pytest.mark.parametrize("name", SEEN_BY_NOBODY)
def test_what_nobody_else_sees_is_made_anew(name: str) -> None:
    net = Net(SEEN_BY_NOBODY[name]).eval()
    with torch.no_grad():
        program = export(net, (X.clone(),), strict=False)
        name_dropout(program.graph)
        assert make_functional(program.graph)
        program.graph.lint()
        targets = [n.target for n in program.graph.nodes if n.op == "call_function"]
        assert not [target for target in targets if target._schema.is_mutable]
        program.graph_module.recompile()
        expected, come = net(X.clone()), program.module()(X.clone())
    torch.testing.assert_close(come, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", SEEN_BY_OTHERS)
def test_what_others_see_is_left_to_torch(name: str) -> None:
    with torch.no_grad():
        program = export(Net(SEEN_BY_OTHERS[name]).eval(), (X.clone(),), strict=False)
    name_dropout(program.graph)
    assert not make_functional(program.graph)


@pytest.mark.parametrize("name", ["a view", "a part", "through a view", "a chunk", "a result that eval mode leaves"])
def test_an_accelerated_network_sees_what_others_write(name: str) -> None:
    net = nn.Sequential(Net(SEEN_BY_OTHERS[name]), nn.Flatten()).eval()
    with torch.inference_mode():
        fast = lrw.accelerate(net, X.clone(), measure=False)
        come, expected = fast(X.clone()), net(X.clone())
    torch.testing.assert_close(come, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_only_dropout_that_drops_nothing_is_another_name() -> None:
    def function(y: Tensor, x: Tensor, held: Tensor) -> Tensor:
        kept = nn.functional.dropout3d(nn.functional.dropout(y, 0.5, False), 0.5, False)
        return nn.functional.dropout(kept, 0.5, True)

    with torch.no_grad():
        program = export(Net(function).eval(), (X.clone(),), strict=False)
    name_dropout(program.graph)
    targets = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert targets == ["aten.conv3d.default", "aten.alias.default", "aten.alias.default", "aten.dropout.default"]
