"""Weights of linear layers are read where torch holds them; where other numbers are made of them, that is known."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrw.trace import trace
from lrw.trace.captured import exported
from lrw.trace.split import split
from lrw.unchanged import extent
from lrw_kernels.choice.convolution import prior
from lrw_kernels.network.operators import Linear
from verify.programs.interpreter import assert_same
from verify.unit.trace.nets import settled

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))


class Case(nn.Module):
    """What `forward` makes of x, an own layer, square weight and bias."""

    def __init__(self, forward: Callable[["Case", Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.numbers = np.random.default_rng(0).standard_normal((6, 6)).astype(np.float32)
        self.weight, self.again = (nn.Parameter(torch.from_numpy(self.numbers)) for _ in range(2))
        self._forward = forward

    def forward(self, x: Tensor) -> Tensor:
        return self._forward(self, x)


IN_PLACE: dict[str, Callable[[Case, Tensor], Tensor]] = {
    "linear": lambda m, x: F.linear(x, m.weight),
    "addmm": lambda m, x: torch.addmm(m.layer.bias, x, m.weight.t()),
    "matmul": lambda m, x: x @ m.weight.T,
    "twice": lambda m, x: F.linear(torch.relu(F.linear(x, m.weight)), m.weight),
    "by another name": lambda m, x: F.linear(F.linear(x, m.weight), m.again),
    "a view of it": lambda m, x: F.linear(x[:, :], m.weight.view(36).view(6, 6)),
    "with a bias by hand": lambda m, x: x @ m.weight.T + m.layer.bias,
    "beside another layer": lambda m, x: m.norm(m.layer(F.linear(x, m.weight))),
}
OTHERWISE: dict[str, Callable[[Case, Tensor], Tensor]] = {
    "transposed": lambda m, x: x @ m.weight,
    "both ways": lambda m, x: F.linear(x @ m.weight, m.weight),
    "folded with a norm": lambda m, x: m.norm(F.linear(x, m.weight)),
    "folded in one of two places": lambda m, x: F.linear(m.norm(F.linear(x, m.weight)), m.weight),
    "folded under another name": lambda m, x: F.linear(m.norm(F.linear(x, m.again)), m.weight),
    "a constant beside it": lambda m, x: F.linear(x, m.weight) + m.weight[:1],
    "a constant made of it": lambda m, x: F.linear(x, m.weight) * m.weight.sum(0),
    "a constant in the same memory": lambda m, x: F.linear(x, m.weight) * m.again[2],
    "a bias of it": lambda m, x: F.linear(x, m.weight, m.weight[1]),
    "a number of it": lambda m, x: F.linear(x, m.weight) * m.weight[0, 0].item(),
    "read by torch": lambda m, x: torch.cumsum(F.linear(x, m.weight) @ m.weight, 1),
}


def lent(case: Case) -> bool:
    """Whether nothing but linear layers that read it in place came of the weight."""
    found = split(exported(case, (X,)), prior()).lent
    (whole,) = {extent(t) for t in (case.weight, case.again)}
    return whole in found


@pytest.mark.parametrize("form", IN_PLACE)
def test_memory_that_linear_layers_alone_read_is_lent(form: str) -> None:
    case = settled(Case(IN_PLACE[form]))
    network = trace(case, X)
    operators = [node.operator for node in network.nodes if isinstance(node.operator, Linear)]
    shared = [np.shares_memory(operator.weight, case.numbers) for operator in operators]
    assert shared == ([True, False] if form == "beside another layer" else [True] * len(operators))
    assert_same(network, case, X)
    assert lent(case)


@pytest.mark.parametrize("form", OTHERWISE)
def test_memory_that_others_read_or_that_is_folded_is_not(form: str) -> None:
    assert not lent(settled(Case(OTHERWISE[form])))


def test_a_traced_network_has_what_is_written_to_the_weights_of_its_linear_layers() -> None:
    net = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    network = trace(net, X)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.mul_(3)
    assert_same(network, net, X)


def test_half_of_a_weight_is_lent_without_the_other() -> None:
    case = settled(Case(lambda m, x: torch.relu(F.linear(x, m.weight[:3])) * m.weight[5, :3]))
    (found,) = split(exported(case, (X,)), prior()).lent
    assert found == extent(case.weight[:3])
