"""The GPU bench's training step of a network: its figures in CUDA graphs, and where there are none."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.on_gpu.clock import Call, Times

network = pytest.importorskip("bench.on_gpu.network", reason="it computes by Triton kernels")

CLIPS = [torch.randn(2, 3, 1, 2, 3) for _ in range(2)]
TIMES = Times(2.0, 1.9, 2.1)
Capture = Callable[[Sequence[Call]], Times]


def bench(graph: Capture) -> Any:
    """One whose graphs are `graph`."""
    return SimpleNamespace(clock=SimpleNamespace(graph=graph))


def replayed(calls: Sequence[Call]) -> Times:
    for call in calls:
        call()
    return TIMES


def refused(calls: Sequence[Call]) -> Times:
    raise RuntimeError("CUDA error: operation not permitted\n  when stream is capturing")


@pytest.fixture
def net() -> nn.Module:
    return network._small()


def off(net: nn.Module, calls: Sequence[Call]) -> Times:
    """A graph whose gradients are wrong."""
    times = replayed(calls)
    for p in net.parameters():
        p.grad *= 1.5
    return times


def test_a_step_in_a_graph_has_times_and_leaves_no_gradients(net: nn.Module) -> None:
    assert network._graph(bench(replayed), net, CLIPS) == network.Figures(TIMES)
    assert all(p.grad is None for p in net.parameters())


def test_a_capture_that_fails_is_a_note(net: nn.Module) -> None:
    found = network._graph(bench(refused), net, CLIPS)
    assert found.note == "no CUDA graph: CUDA error: operation not permitted when stream is capturing"
    assert found.times is None
    assert all(p.grad is None for p in net.parameters())


def test_a_graph_with_other_gradients_has_no_times(net: nn.Module) -> None:
    found = network._graph(bench(lambda calls: off(net, calls)), net, CLIPS)
    assert found == network.Figures(note="gate: gradients in a CUDA graph are 0.5 of their norm from those without")


def test_cudnn_s_step_is_that_of_the_layout_that_is_faster_and_works(net: nn.Module) -> None:
    figures = iter([network.Figures(note="no CUDA graph: no room"), network.Figures(TIMES)])
    found = network._faster(bench(replayed), net, CLIPS, lambda *_: next(figures))
    assert found == network.Figures(TIMES, form="NCDHW")


def test_a_row_says_whose_capture_failed() -> None:
    ours, failed = network.Figures(TIMES), network.Figures(note="no CUDA graph: no room")
    assert network._against(failed, ours)["note"] == "cuDNN: no CUDA graph: no room"
    assert network._against(failed, ours)["ms"] == 2.0
    assert network._against(ours, failed)["note"] == "no CUDA graph: no room"
    assert network._against(ours, failed)["speedup"] is None
    assert network._against(ours, ours)["speedup"] == 1.0
