"""Laws of writing for whole networks: after any write to a weight an accelerated network gives the new result.

Weights of linear layers are read where they lie: what is written there costs nothing, what lies elsewhere is seen.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrw
from lrw import engine
from lrw.accelerate import PROGRAM
from verify.laws.test_writers import CIN, INPUTS, WRITERS

X = INPUTS[0]
REFUSED = {"swapped", "swapping conversions"}  # by torch: torch.export has left weak references to the tensors
STAY = {name for name in WRITERS if name.startswith("data")} - {"data, new memory"}
STAY |= {"numpy", "dlpack", "version kept", "in place", "inference mode"}


def net() -> nn.Module:
    """One whose largest weight is a linear layer's."""
    torch.manual_seed(1)
    layers = nn.Conv3d(CIN, 20, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(20 * 5 * 6 * 7, 30), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(30, 6, bias=False)).eval()


class Twice(nn.Module):
    """A weight that a linear layer reads and something else, too."""

    def __init__(self, other: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight, self._other = nn.Parameter(torch.randn(12, 12)), other

    def forward(self, x: Tensor) -> Tensor:
        return self._other(F.linear(x, self.weight).relu(), self.weight)


class Builds:
    """How many programs were built since the last time it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._count, build = 0, engine.build

        def counting(*args: object) -> object:
            self._count += 1
            return build(*args)

        monkeypatch.setattr(engine, "build", counting)

    def new(self) -> int:
        """The count, from 0 on again."""
        count, self._count = self._count, 0
        return count


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> Builds:
    return Builds(monkeypatch)


def accelerated(plain: nn.Module, x: Tensor = X) -> nn.Module:
    return lrw.accelerate(plain, x, measure=False)


def assert_follows(fast: nn.Module, x: Tensor = X) -> None:
    """A program gives what the plain network does with the weights of today."""
    with torch.no_grad():
        expected, y = lrw.revert(fast)(x), fast(x)
    assert fast.report.last == PROGRAM
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("writer", [name for name in WRITERS if name not in REFUSED])
def test_every_write_is_seen(writer: str, builds: Builds) -> None:
    fast = accelerated(net())
    assert_follows(fast)
    builds.new()
    with torch.no_grad():
        before = fast(X)
    WRITERS[writer](fast)
    assert_follows(fast)
    assert (builds.new() == 0) == (writer in STAY)
    with torch.no_grad():
        same = torch.allclose(fast(X), before, rtol=1e-3)
    assert not same or writer in ("there and back", "data, two signs"), "the writer wrote nothing"


def test_what_an_optimizer_does_to_linear_layers_is_read_at_once(builds: Builds) -> None:
    fast = accelerated(net())
    weights = [fast[3].weight, fast[5].weight]
    optimizer = torch.optim.SGD(weights, lr=0.01, momentum=0.9)
    builds.new()
    for _ in range(3):
        optimizer.zero_grad()
        fast(X).square().mean().backward()
        optimizer.step()
        assert_follows(fast)
    assert builds.new() == 0


def test_other_weights_are_watched_still() -> None:
    fast = accelerated(net())
    for module in (fast[0], fast[3]):
        module.bias.data.add_(1)
        assert_follows(fast)
    fast[0].weight.data.mul_(-2)
    assert_follows(fast)


@pytest.mark.parametrize(
    "other",
    [lambda y, w: y @ w, lambda y, w: y + w[0], lambda y, w: F.linear(y, w * 2), lambda y, w: F.linear(y, w, w[:, 3])],
    ids=["transposed", "beside", "scaled", "bias"],
)
def test_a_weight_that_something_else_reads_is_watched(other: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = torch.randn(2, 12)
    fast = accelerated(Twice(other).eval(), x)
    for write in ("data", "numpy", "in place"):
        WRITERS[write](fast)
        assert_follows(fast, x)


def test_weights_read_in_place_are_not_the_programs() -> None:
    fast = accelerated(net())
    held = fast[3].weight.nbytes + fast[5].weight.nbytes
    assert 0 < fast.report.weights_bytes < held
    x = torch.randn(2, 12)
    folded = nn.Sequential(nn.Linear(12, 12), nn.BatchNorm1d(12), nn.ReLU()).eval()
    assert accelerated(folded, x).report.weights_bytes >= folded[0].weight.nbytes


def test_trust_spares_the_look_at_the_rest(builds: Builds) -> None:
    fast = accelerated(net())
    with torch.no_grad():
        before = fast(X)
        lrw.trust(fast)
        fast[0].weight.data.mul_(2)
        assert torch.equal(fast(X), before)
        fast[3].weight.data.neg_()
        assert not torch.allclose(fast(X), before)
        lrw.trust(fast, every=1)
    builds.new()
    assert_follows(fast)
    assert builds.new() == 1


def test_trusted_weights_are_looked_at_at_every_third_use() -> None:
    fast = accelerated(net())
    with torch.no_grad():
        before = fast(X)
        lrw.trust(fast, every=3)
        fast[0].weight.data.mul_(2)
        for i in range(3):
            lrw.trust(nn.Linear(2, 2), every=4 + i)  # of another network, which goes at once
            last = fast(X)
        assert not torch.allclose(last, before)
    assert_follows(fast)


def test_every_weight_counts_at_its_own_rate() -> None:
    fast = accelerated(nn.Sequential(nn.Conv3d(CIN, 5, 3), nn.ReLU(), nn.Conv3d(5, 4, 3)).eval())
    first, second = fast[0].weight, fast[2].weight
    with torch.no_grad():
        lrw.trust(fast[0])
        lrw.trust(fast[2], every=2)
        before = fast(X)
        first.data.mul_(2)
        assert torch.equal(fast(X), before)  # looks at the second alone
        second.data.mul_(2)
        results = [fast(X) for _ in range(2)]
        assert not torch.allclose(results[-1], before)


def test_forgotten_networks_are_looked_at_whatever_is_trusted(builds: Builds) -> None:
    fast = accelerated(net())
    with torch.no_grad():
        before = fast(X)
        lrw.trust(fast)
        lrw.forget(fast)
        builds.new()
        assert torch.equal(fast(X), before)
        assert builds.new() == 0, "nothing has changed"
        fast[0].weight.data.mul_(2)
        assert torch.equal(fast(X), before), "as promised: nobody looks"
        lrw.forget(fast)
        assert not torch.allclose(fast(X), before)


def test_forms_of_calls_share_the_weights_that_are_read_in_place() -> None:
    plain = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3)).eval()
    fast, more = accelerated(plain, torch.randn(1, 12)), torch.randn(5, 12)
    assert_follows(fast, more)
    fast[0].weight.data.mul_(3)
    for x in (more, more[:1]):
        assert_follows(fast, x)
