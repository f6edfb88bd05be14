"""torch.compile's backend: programs for what dynamo hands over, the graph itself elsewhere."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lrw import compiled, programs
from verify.unit.trace.nets import settled

X = torch.randn(1, 3, 8, 6, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every run of a program."""
    seen: list[int] = []
    run = programs.NetworkProgram.run
    monkeypatch.setattr(programs.NetworkProgram, "run", lambda self, leaves: seen.append(1) or run(self, leaves))
    return seen


class Net(nn.Module):
    """Convolutions with batch norm; breaks its graph in between if it is told to."""

    def __init__(self, breaks: bool = False) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 16, 3, padding=1), nn.BatchNorm3d(16), nn.ReLU())
        self.last, self.breaks = nn.Conv3d(16, 4, 3, padding=1), breaks

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.breaks:
            torch._dynamo.graph_break()
        return self.last(y)


def same(fast: Any, net: nn.Module, x: Tensor = X) -> None:
    torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)


def test_it_is_found_by_name() -> None:
    (found,) = entry_points(group="torch_dynamo_backends", name="lrw")
    assert found.load() is compiled.backend


@pytest.mark.parametrize("breaks", [False, True])
def test_pieces_run_as_programs_and_follow_their_weights(breaks: bool, runs: list[int]) -> None:
    net = settled(Net(breaks))
    fast = torch.compile(net, backend=compiled.backend, options={"measure": False})
    with torch.no_grad():
        same(fast, net)
        assert len(runs) == 1 + breaks
        net.first[0].weight.mul_(2)
        net.first[1].running_mean.add_(1)
        same(fast, net)
        net.last.weight = nn.Parameter(-net.last.weight)
        same(fast, net)
    assert len(runs) == 3 * (1 + breaks)


def test_whole_graphs_and_other_sizes(runs: list[int]) -> None:
    net = settled(Net())
    fast = torch.compile(net, backend=compiled.backend, fullgraph=True)
    with torch.inference_mode():
        for size in (8, 7, 6, 5):
            same(fast, net, torch.randn(1, 3, size, 6, 6))
    assert len(runs) == 4


def test_gradients_and_training_are_the_graphs_own(runs: list[int]) -> None:
    net, x = settled(Net()), X.clone().requires_grad_()
    fast = torch.compile(net, backend=compiled.backend)
    fast(x).sum().backward()
    found, x.grad = x.grad, None
    net(x).sum().backward()
    torch.testing.assert_close(found, x.grad)
    with torch.no_grad():
        net.train()
        before = net.first[1].running_mean.clone()
        fast(X)
        assert not torch.equal(net.first[1].running_mean, before)
    assert not runs


@pytest.mark.parametrize("options", [{"speed": 1}, {"rtol": -1}, {"threads": -1}])
def test_options_that_are_not_accepted_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(Exception, match=f"{next(iter(options))}.*accepted"):
        torch.compile(Net().eval(), backend=compiled.backend, options=options)(X)
