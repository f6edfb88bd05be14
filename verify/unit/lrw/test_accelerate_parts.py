"""Networks in parts: torch between programs, several tensors in and out, calls of several forms."""

import gc
import json
import platform
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import lrw
from lrw.engine import MOST_FORMS, PROGRAM
from verify.unit.trace.nets import settled

X = torch.randn(1, 3, 8, 6, 10, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Kernels compute what comes before and behind the attention; what comes out is a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(3, 16, 3, padding=1), nn.InstanceNorm3d(16), nn.ReLU())
        self.down = nn.Conv3d(16, 16, 3, padding=1, stride=2)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.last = nn.ConvTranspose3d(16, 16, 2, 2), nn.Conv3d(32, 4, 1)

    def forward(self, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
        first = self.first(x)
        down = self.down(first)
        tokens = down.flatten(2).transpose(1, 2)
        tokens = self.attention(tokens, tokens, tokens)[0] * scale
        down = down + tokens.transpose(1, 2).reshape(down.shape)
        y = self.last(torch.cat([self.up(down), first], 1))
        return {"logits": y, "deep": (down, down.mean()), "labels": y.argmax(1)}


class Several(nn.Module):
    """Two tensors and a number go in, three come out: one of them is read on, one is reshaped, one is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv3d(3, 8, 3, padding=1), nn.Conv3d(2, 8, 3, padding=1), nn.Conv3d(8, 4, 3)

    def forward(self, x: Tensor, y: Tensor, *, times: int = 1) -> tuple[Tensor, ...]:
        both = torch.relu(self.a(x) + self.b(y))
        pooled = nn.functional.adaptive_avg_pool3d(both, 1)
        return both, self.c(both) * times, pooled.flatten(1), pooled


class Unfit(nn.Module):
    """An operator of another kind between convolutions of `inner`, which reads what lies in torch's order."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.between = nn.Conv3d(3, 8, 3, padding=1), nn.Conv3d(8, 5, 3, padding=1), between

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


def same(fast: nn.Module, net: nn.Module, *args: Any, **kwargs: Any) -> str:
    """Asserts that both give the same structure of tensors that lie alike; what computed it."""
    with torch.no_grad():
        found, expected = fast(*args, **kwargs), net(*args, **kwargs)
    assert pytree.tree_structure(found) == pytree.tree_structure(expected)
    for f, e in zip(pytree.tree_leaves(found), pytree.tree_leaves(expected), strict=True):
        assert (f.shape, f.dtype) == (e.shape, e.dtype)
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-5)
    return str(fast.report.last)


def torchs(fast: nn.Module) -> list[str]:
    return [part.operator for part in fast.report.parts if part.why]


def test_torch_computes_between_programs_what_kernels_do_not() -> None:
    net = settled(Attention())
    fast = lrw.accelerate(net, X)
    assert same(fast, net, X) == PROGRAM
    assert same(fast, net, X.to(memory_format=torch.channels_last_3d)) == PROGRAM
    names = {part.name: part for part in fast.report.parts}
    assert names["attention.softmax"].operator == "torch's aten.softmax"
    assert "torch" in names["attention.softmax"].why
    assert {"first.0", "down", "up", "last"} <= {part.name for part in fast.report.parts if not part.why}
    assert 0 < fast.report.torch_ms < fast.report.after_ms * 10
    with torch.no_grad():
        for n in (net, fast):
            n.attention.in_proj_weight.mul_(-2)
            n.down.bias.add_(1)
    assert same(fast, net, X) == PROGRAM


def test_several_tensors_and_numbers_go_in_and_come_out() -> None:
    net, y = settled(Several()), torch.randn(1, 2, 8, 6, 10)
    fast = lrw.accelerate(net, (X, y))
    assert same(fast, net, X, y) == PROGRAM
    assert not torchs(fast)
    assert same(fast, net, X, y=y) == PROGRAM
    assert same(fast, net, x=X, y=y, times=3) == PROGRAM
    assert same(fast, net, X, y, times=2) == PROGRAM


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "view": lambda x: x.view(1, 2, 4, -1).flip(1).reshape(x.shape),
    "cumulative": lambda x: x.cumsum(2),
    "roll": lambda x: x.roll(1, 0),
    "doubled": lambda x: x.double().sin().float(),
    "indexed": lambda x: x[:, torch.arange(8).flip(0)],
    "einsum": lambda x: torch.einsum("ncdhw,ncehw->ncehw", x, x),
    "strided": lambda x: x.as_strided(x.shape, x.stride()).clone(),
    "parts": lambda x: torch.cat([x.chunk(2, 1)[0].cos(), x.chunk(2, 1)[1]], 1),
    "parts of what is torch's": lambda x: torch.cat([part.relu() for part in x.cos().split(3, 1)], 1),
    "channels of both": lambda x: torch.cat([x[:, :3], x[:, 2:7].cos()], 1),
    "a gate": lambda x: x * x[:, :1].sigmoid() * x.cos(),
    "sorted": lambda x: x.sort(1)[0],
    "both of a pool": lambda x: torch.lt(*F.max_pool3d(x, 3, 1, 1, return_indices=True)).float(),
    "of unknown size": lambda x: x[:, torch.tensor([True] * 8)],
    "a power by channel": lambda x: x.abs() ** torch.linspace(0.5, 2, 8).view(1, 8, 1, 1, 1),
    "both of a sort": lambda x: torch.add(*x.topk(8, 1)),
    "padded in place": lambda x: x.add(0).mul_(2).cos_(),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_what_is_torchs_gets_tensors_as_it_expects_them(what: str) -> None:
    net = settled(Unfit(BETWEEN[what]))
    fast = lrw.accelerate(net, X)
    for x in (X, X.to(memory_format=torch.channels_last_3d), X.transpose(2, 4).contiguous().transpose(2, 4)):
        assert same(fast, net, x) == PROGRAM


def test_other_sizes_and_batches_get_programs_of_their_own_and_the_oldest_goes() -> None:
    net = settled(Unfit(torch.relu))
    fast = lrw.accelerate(net, X)
    for size in range(4, 4 + MOST_FORMS):
        assert same(fast, net, torch.randn(2, 3, size, 5, 6)) == PROGRAM
    built = fast.__dict__["_lrw"].built
    assert len(built) == MOST_FORMS
    kept = [*built.values()]
    assert same(fast, net, torch.randn(2, 3, 4, 5, 6)) == PROGRAM
    assert [*built.values()] == kept  # that one was there
    assert same(fast, net, X) == PROGRAM
    assert [*built.values()][-1] not in kept


def test_a_call_the_network_refuses_is_the_networks_error() -> None:
    fast = lrw.accelerate(settled(Unfit(torch.relu)), X)
    with torch.no_grad(), pytest.raises(RuntimeError, match="expected input"):
        fast(torch.randn(1, 4, 5, 5, 5))
    assert "torch.export cannot follow it" in fast.report.last
    with torch.no_grad(), pytest.raises(TypeError, match="missing"):
        fast()
    assert fast.report.last == "the arguments are not plain tensors"


class Holder:
    """Not a tensor, a number or a text."""


class Keyed(nn.Module):
    """Takes more than tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv3d(3, 2, 3)

    def forward(self, x: Tensor, extra: object = None) -> Tensor:
        return self.inner(x)


def test_arguments_of_other_kinds_are_the_networks_own() -> None:
    net = Keyed().eval()
    fast = lrw.accelerate(net, X)
    assert same(fast, net, X, Holder()) == "the arguments hold more than tensors, numbers and texts"
    assert same(fast, net, X, {"a": [1, None, "b"]}) == PROGRAM


def test_the_report_is_json_too() -> None:
    fast = lrw.accelerate(settled(Unfit(BETWEEN["cumulative"])), X)
    said = json.loads(fast.report.json())
    assert said["speedup"] == pytest.approx(fast.report.speedup)
    assert [part["operator"] for part in said["parts"] if part["why"]] == ["torch's aten.cumsum"]
    assert "torch's aten.cumsum" in str(fast.report)
    assert "is none of this version's operators" in str(fast.report)


class Leaves(nn.Module):
    """Leaves tensors behind at every pass, and reads those of the pass before if it is told to."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.inner, self.heads, self.reads = nn.Conv3d(3, 3, 3, padding=1), [torch.zeros(1)], reads

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.reads:
            y = y + self.heads[0]
        self.heads[0] = y
        return torch.relu(y)


def test_tensors_a_pass_leaves_behind_matter_only_to_a_network_that_reads_them() -> None:
    net = Leaves(reads=False).eval()
    fast = lrw.accelerate(net, X)
    for x in (X, X + 1, X):
        assert same(fast, net, x) == PROGRAM
    assert len(fast.__dict__["_lrw"].built) == 1
    with pytest.raises(ValueError, match=r"^net: sets Leaves\.heads with every call"):
        lrw.accelerate(Leaves(reads=True).eval(), X)


class Renewed(nn.Module):
    """Is in training mode when it is copied, as einops' layers are."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.training = True

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_copies_have_the_modes_of_the_original() -> None:
    net = nn.Sequential(nn.Conv3d(3, 2, 3), Renewed()).eval()
    assert same(lrw.accelerate(net, X), net, X) == PROGRAM


def test_programs_of_all_forms_and_copies_read_the_same_weights_as_long_as_one_does() -> None:
    net = settled(nn.Sequential(nn.Conv3d(3, 32, 3, padding=1), nn.Conv3d(32, 3, 3, padding=1)))
    fast = lrw.accelerate(net, X, measure=False)
    again = lrw.accelerate(net, X, measure=False)
    for x in (X, torch.cat([X, X])):
        assert same(fast, net, x) == PROGRAM
    programs = [built.program for one in (fast, again) for built in one.__dict__["_lrw"].built.values()]
    held = [part.program.held for program in programs for part in program.parts]
    assert len(held) == 3
    assert all(a is b for others in held[1:] for a, b in zip(held[0], others, strict=True))
    gone = weakref.ref(held[0][0])
    del fast, again, programs, held
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_that_meet_the_padding_alone(layers: int, tmp_path: Path) -> None:
    """Where no tap lies inside, of the input and of activations between, in this process and in a library."""
    torch.manual_seed(0)
    inner = [nn.Conv3d(2, 4, 1)] if layers == 2 else []
    net = nn.Sequential(*inner, nn.Conv3d(4 if inner else 2, 9, 1, padding=1)).eval()
    x = torch.randn(1, 2, 2, 2, 2)
    with torch.inference_mode():
        torch.testing.assert_close(lrw.accelerate(net, x, measure=False)(x), net(x))
    if platform.machine() == "x86_64":
        lrw.export(net, x, tmp_path, target="x86_64-linux-gnu", check=True)
