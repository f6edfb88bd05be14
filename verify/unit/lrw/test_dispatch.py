"""Calls that come again take a short way: it must see everything the long one sees."""

import gc
from collections.abc import Callable
from weakref import ref

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lrw import dispatch, unchanged
from lrw.ops import winograd_conv3d, winograd_domain_conv3d

TILE = 2


def tensors(cin: int = 20, cout: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """x channels last, u and a bias."""
    x = torch.randn(2, cin, 6, 7, 8).to(memory_format=torch.channels_last_3d)
    return x, torch.randn(64, cin, cout), torch.randn(cout)


def domain(x: Tensor, u: Tensor, bias: Tensor | None = None, **more: object) -> Tensor:
    return winograd_domain_conv3d(x, u, bias, tile=TILE, padding=1, backend="cpu", **more)  # type: ignore[arg-type]


@pytest.fixture
def shortened(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many calls took the short way since this was asked last."""
    taken: list[bool] = []
    way = dispatch.again

    def counted(call: dispatch.Call) -> Tensor | None:
        y = way(call)
        taken.append(y is not None)
        return y

    monkeypatch.setattr("lrw.ops.again", counted)

    def count() -> int:
        found = sum(taken)
        taken.clear()
        return found

    return count


@pytest.mark.parametrize("memory_format", [torch.channels_last_3d, torch.contiguous_format])
@pytest.mark.parametrize("cout", [32, 17])
def test_the_third_call_is_short_and_the_same(
    shortened: Callable[[], int], memory_format: torch.memory_format, cout: int
) -> None:
    x, u, bias = tensors(cout=cout)
    x, residual = x.contiguous(memory_format=memory_format), torch.randn(2, cout, 6, 7, 8)
    residual = residual.contiguous(memory_format=memory_format)
    calls = [domain(x, u, bias, residual=residual, relu=True) for _ in range(4)]
    assert shortened() == 2
    for y in calls[1:]:
        assert torch.equal(y, calls[0])
        assert y.stride() == calls[0].stride()


def test_spatial_weights_are_short_too(shortened: Callable[[], int]) -> None:
    x, weight = torch.randn(1, 8, 6, 6, 6), torch.randn(16, 8, 3, 3, 3)
    calls = [winograd_conv3d(x, weight, padding=[1, 1, 1], tile=TILE) for _ in range(4)]
    assert shortened() >= 1
    assert all(torch.equal(y, calls[0]) for y in calls)
    torch.testing.assert_close(calls[-1], F.conv3d(x, weight, padding=1), rtol=1e-4, atol=1e-4)


def test_other_values_are_used(shortened: Callable[[], int]) -> None:
    x, u, bias = tensors()
    for _ in range(3):
        before = domain(x, u, bias)
    assert shortened() == 1
    torch.testing.assert_close(domain(2 * x, u, 2 * bias), 2 * before)
    assert shortened() == 1
    u *= 2
    torch.testing.assert_close(domain(x, u, 2 * bias), 2 * before)
    assert shortened() == 0, "weights that were written to are new weights"


def test_what_is_wrong_is_still_refused() -> None:
    x, u, bias = tensors()
    for _ in range(3):
        domain(x, u, bias, residual=None)
    with pytest.raises(ValueError, match="bias"):
        domain(x, u, bias[:-1])
    with pytest.raises(ValueError, match="residual"):
        domain(x, u, bias, residual=torch.randn(2, 32, 6, 7, 9))
    with pytest.raises(ValueError, match="input"):
        domain(x[:, :19], u, bias)
    with pytest.raises(ValueError, match="dtype"):
        domain(x.double(), u, bias)
    with pytest.raises(ValueError, match="bias"):
        domain(x, u, bias.to("meta"))
    with pytest.raises(ValueError, match="backend"):
        winograd_domain_conv3d(x, u, bias, tile=TILE, padding=1, backend="nothing")


def test_odd_arguments_are_judged_as_in_a_first_call(shortened: Callable[[], int]) -> None:
    x, weight = torch.randn(1, 8, 6, 6, 6), torch.randn(16, 8, 3, 3, 3)
    for _ in range(3):
        expected = winograd_conv3d(x, weight, padding=1, tile=2)
    for name, value in (("tile", 2.0), ("padding", 1.0), ("groups", 1.0), ("stride", [1, 1, [1]])):
        with pytest.raises(ValueError, match=name):
            winograd_conv3d(x, weight, **{"padding": 1, "tile": 2, name: value})  # type: ignore[arg-type]
    assert shortened() == 1
    assert torch.equal(winograd_conv3d(x, weight, padding=[1, 1, 1], tile=[2, 2, 2]), expected)


def test_weights_of_another_form_are_other_weights() -> None:
    x, u, _ = tensors(cin=16)
    for _ in range(3):
        domain(x, u)
    u.data = u.data.view(64, 32, 16)
    with pytest.raises(ValueError, match="channels"):
        domain(x, u)
    x, u, _ = tensors(cin=32)
    for _ in range(3):
        domain(x, u)
    u.data = u.data.transpose(1, 2)
    torch.testing.assert_close(domain(x, u), domain(x, u.clone()))


def test_what_was_kept_of_changed_weights_goes() -> None:
    x, u, _ = tensors()
    for size in (6, 7, 8):
        u *= 0.5
        for _ in range(3):
            domain(x[..., :size], u)
    views = unchanged._SEEN[id(u.untyped_storage())]
    kept = [owner for seen in views.values() for owner, _ in seen.values]
    assert kept.count(id(dispatch._SHORT)) == 1


def test_the_default_device_is_of_no_concern() -> None:
    x, weight = torch.randn(1, 8, 40, 40, 40), torch.randn(32, 8, 3, 3, 3)
    expected = winograd_conv3d(x, weight)
    with torch.device("meta"):
        for _ in range(3):
            assert torch.equal(winograd_conv3d(x[..., :8], weight), winograd_conv3d(x[..., :8], weight))
            assert torch.equal(winograd_conv3d(x, weight), expected)


def test_gradients_autocast_and_threads_leave_the_short_way(shortened: Callable[[], int]) -> None:
    x, u, bias = tensors()
    for _ in range(3):
        expected = domain(x, u, bias)
    assert shortened() == 1
    trained = u.requires_grad_()
    assert domain(x, trained, bias).requires_grad
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(domain(x, u, bias), expected)
    assert shortened() == 0
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        with torch.no_grad():
            torch.testing.assert_close(domain(x, u, bias), expected)
        assert shortened() == 0
    finally:
        torch.set_num_threads(threads)
    with torch.no_grad():
        tangents = torch.func.jvp(lambda x: domain(x, u, bias), (x,), (x,))[1]
    torch.testing.assert_close(tangents, expected - bias.view(1, -1, 1, 1, 1), rtol=1e-4, atol=1e-3)


def test_negated_views_are_read_right() -> None:
    x, u, _ = tensors()
    for _ in range(3):
        expected = domain(x, u)
    negated = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert negated.is_neg()
    torch.testing.assert_close(domain(negated, u), expected)


def test_nothing_keeps_weights_alive() -> None:
    x, u, bias = tensors()
    weight = torch.randn(16, 20, 3, 3, 3)
    for _ in range(3):
        domain(x, u, bias)
        domain(x.contiguous(), u, bias)
        winograd_domain_conv3d(x, u, bias, tile=TILE, padding=1, backend="torch")
        winograd_conv3d(x, weight, padding=1)
    held = [ref(u), ref(weight)]
    del u, weight
    gc.collect()
    assert [reference() for reference in held] == [None, None]
