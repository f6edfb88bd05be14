"""Accelerated networks whose weights are many: the system notes writes to them, and every way to write is seen."""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw_kernels.codegen import written
from lrw_kernels.cpu import digest

X = torch.randn(1, 48, 5, 6, 7, generator=torch.Generator().manual_seed(0))


def in_place(weight: Tensor) -> None:
    with torch.no_grad():
        weight[-1, -1] += 1


def by_data(weight: Tensor) -> None:
    weight.data.view(-1)[50_000] = 3


def by_numpy(weight: Tensor) -> None:
    weight.detach().numpy()[0, 0, 0, 0, 0] = 3


def by_dlpack(weight: Tensor) -> None:
    torch.from_dlpack(weight.detach())[0, 0, 0, 0, 1] = 3


def by_the_c_library(weight: Tensor) -> None:
    ctypes.memset(weight.data_ptr() + 4 * 40_000, 0, 40)


def by_a_system_call(weight: Tensor) -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        zeros.readinto(memoryview(weight.detach().numpy().reshape(-1))[1000:3000])


WAYS = (in_place, by_data, by_numpy, by_dlpack, by_the_c_library, by_a_system_call)


def settled(fast: nn.Module) -> nn.Module:
    """`fast` after passes enough to rely on what the system notes."""
    for _ in range(3):
        assert_follows(fast)
    return fast


def assert_follows(fast: nn.Module) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(fast(X), lrw.revert(fast)(X), rtol=1e-4, atol=1e-4)


def network() -> nn.Module:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv3d(48, 48, 3, padding=1), nn.ReLU(), nn.Conv3d(48, 48, 3, padding=1))
    return lrw.accelerate(net.eval(), X, measure=False)


@pytest.mark.parametrize("write", WAYS)
def test_every_write_to_many_weights_is_seen(write: Callable[[Tensor], None]) -> None:
    fast = settled(network())
    for layer in (2, 0):  # after one was seen, the next one is
        with torch.inference_mode():
            before = fast(X)
        write(fast[layer].weight)
        assert_follows(fast)
        with torch.inference_mode():
            assert not torch.equal(fast(X), before)
        settled(fast)


def test_two_networks_of_the_same_weights_both_see_a_write() -> None:
    fast, other = network(), network()
    other[0].weight, other[2].weight = fast[0].weight, fast[2].weight
    settled(fast)
    settled(other)
    for write, layer in ((by_data, 0), (by_numpy, 2), (by_the_c_library, 0)):
        write(fast[layer].weight)
        assert_follows(fast)
        assert_follows(other)


def in_a_child(of: Callable[[], bool]) -> bool:
    """What a forked process says, on one thread: the parent's are not there."""
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            os._exit(0 if of() else 1)
        finally:
            os._exit(2)
    return os.waitpid(child, 0)[1] == 0


def test_a_write_by_another_process_is_seen() -> None:
    """Where memory is shared the system's notes are not enough."""
    fast = settled(network().share_memory())

    def write() -> bool:
        by_data(fast[0].weight)
        return True

    assert in_a_child(write)
    assert_follows(fast)


def test_a_child_sees_its_own_writes_and_so_does_its_parent() -> None:
    fast = settled(network())

    def write() -> bool:
        by_data(fast[0].weight)
        with torch.inference_mode():
            return torch.allclose(fast(X), lrw.revert(fast)(X), rtol=1e-4, atol=1e-4)

    assert in_a_child(write)
    assert_follows(fast)
    by_numpy(fast[2].weight)
    assert_follows(fast)


@pytest.mark.skipif(not written.supported(), reason="this system notes no writes: Linux does from 6.7 on")
def test_what_nobody_wrote_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()  # networks of before, that watch memory close by
    fast, read = settled(network()), list[int]()
    plain = digest.digest

    def counting(of: digest.Pieces, workers: int) -> bytes:
        read.append(of.size)
        return plain(of, workers)

    monkeypatch.setattr(digest, "digest", counting)
    assert_follows(fast)
    weights = 4 * sum(parameter.numel() for parameter in fast.parameters())
    assert 0 < sum(read) < weights / 10
    read.clear()
    by_data(fast[0].weight)
    assert_follows(fast)
    assert sum(read) >= weights
