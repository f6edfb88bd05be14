"""The GPU backend as users meet it, in Triton's interpreter: `TRITON_INTERPRET=1 pytest` runs these."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import lrw
from lrw.backends import triton
from lrw.ops import transform_weight, winograd_conv3d, winograd_domain_conv3d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
refused = triton.refusal(torch.device(DEVICE), torch.float32)
pytestmark = pytest.mark.skipif(refused is not None, reason=f"{refused} (TRITON_INTERPRET=1 interprets the kernels)")


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return made.to(DEVICE, dtype)


def compute(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    return winograd_conv3d(x, w, bias, padding=1, tile=2, backend="triton")


X, W, B = normal(1, 16, 3, 5, 6), normal(16, 16, 3, 3, 3, seed=1) / 20, normal(16, seed=2)


@pytest.fixture(autouse=True)
def _plain_float32() -> object:
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def test_equals_conv3d_with_all_gradients() -> None:
    x, w, b = (t.clone().requires_grad_() for t in (X, W, B))
    y, expected = compute(x, w, b), F.conv3d(x, w, b, padding=1)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)
    dy = normal(*y.shape, seed=3)
    grads = torch.autograd.grad(y, (x, w, b), dy), torch.autograd.grad(expected, (x, w, b), dy)
    for ours, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_what_it_is(dtype: torch.dtype) -> None:
    u = transform_weight(W, 2)
    y = winograd_domain_conv3d(X.to(dtype), u, tile=2, padding=1, backend="triton")
    assert y.dtype == dtype
    exact = F.conv3d(X.to(dtype).double(), W.double(), padding=1)
    assert float((y.double() - exact).norm() / exact.norm()) < 2 * torch.finfo(dtype).eps


def test_tf32_products_are_rounded_and_not_cut() -> None:
    """Cutting leaves results 7e-4 too small and as far off; rounding has no bias, and less than half of that error."""
    x, w = X.abs(), W.abs()
    exact = F.conv3d(x.double(), w.double(), padding=1)
    with torch.backends.cudnn.flags(allow_tf32=True):
        errors = compute(x, w).double() / exact - 1
    assert 1e-6 < float(errors.square().mean().sqrt()) < 4e-4
    assert abs(float(errors.mean())) < 1e-4


@pytest.mark.parametrize("bits", [0x7FC00000, 0x7FFFFFFF, -1])
def test_tf32_keeps_nan_whatever_its_bits(bits: int) -> None:
    """Those of a GPU are all ones; rounded as numbers are they would become zeros."""
    x = X.clone()
    x[0, 0, 1, 2, 3] = torch.tensor(bits, dtype=torch.int32, device=DEVICE).view(torch.float32)
    with torch.backends.cudnn.flags(allow_tf32=True):
        y = compute(x, W)
    assert torch.isnan(y[0, :, 1, 2, 3]).all()
    assert torch.isfinite(y[..., :2]).all()  # no tile of theirs reads it


def test_tiles_of_many_positions_are_right_by_loops_at_run_time() -> None:
    x, w = normal(1, 2, 1, 13, 11), normal(3, 2, 1, 5, 5, seed=1) / 7
    dy = normal(1, 3, 1, 13, 11, seed=3)

    def passes(run: Callable[..., Tensor], **more: object) -> list[Tensor]:
        a, b = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = run(a, b, padding=(0, 2, 2), **more)
        return [y.detach(), *torch.autograd.grad(y, (a, b), dy)]

    for ours, theirs in zip(
        passes(winograd_conv3d, tile=(1, 8, 6), backend="triton"), passes(F.conv3d), strict=True
    ):  # F(8,5) amplifies roundings a hundred times
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-4


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last_3d": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "sliced": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "batch of a larger one": lambda x: torch.cat([x, x]).contiguous(memory_format=torch.channels_last_3d)[:1],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_numbers_in_its_own_layout(layout: str) -> None:
    x = LAYOUTS[layout](X)
    y = compute(x, W)
    assert torch.equal(y, compute(X, W))
    assert y.is_contiguous(memory_format=torch.channels_last_3d) == (layout != "contiguous" and layout != "sliced")


def test_bias_residual_and_relu_are_one_pass_that_keeps_nan() -> None:
    residual = normal(1, 16, 3, 5, 6, seed=4)
    residual[0, 0, 0, 0, 0] = torch.nan
    y = winograd_conv3d(X, W, B, padding=1, tile=2, residual=residual, relu=True, backend="triton")
    expected = (F.conv3d(X, W, B, padding=1) + residual).relu()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5, equal_nan=True)
    assert torch.isnan(y[0, 0, 0, 0, 0])


def test_results_repeat_to_the_bit() -> None:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    runs = [torch.autograd.grad(compute(x, w).square().sum(), (x, w)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_an_empty_batch_gives_empty_outputs_and_zero_gradients() -> None:
    x, w = normal(0, 16, 3, 5, 6).requires_grad_(), W.clone().requires_grad_()
    y = compute(x, w)
    assert y.shape == (0, 16, 3, 5, 6)
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert dx.shape == x.shape
    assert not dw.any()


def test_compiles_without_graph_breaks() -> None:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    compiled = torch.compile(lambda x, w: compute(x, w).relu(), fullgraph=True, backend="aot_eager")
    y = compiled(x, w)
    y.sum().backward()
    torch.testing.assert_close(y, F.conv3d(X, W, padding=1).relu(), rtol=0, atol=1e-5)
    assert w.grad is not None


def test_checkpointing_recomputes_the_same() -> None:
    x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
    plain = torch.autograd.grad(compute(x, w).square().sum(), (x, w))
    again = torch.autograd.grad(checkpoint(compute, x, w, use_reentrant=False).square().sum(), (x, w))
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_a_pruned_low_rank_layer_trains_on_it() -> None:
    net = torch.nn.Sequential(torch.nn.Conv3d(16, 16, 3, padding=1))
    net = lrw.add_low_rank(lrw.to_winograd(net.to(DEVICE), tile=2), rank=2)
    layer = net[0]
    layer.backend = "triton"
    y = net(X)
    y.square().sum().backward()
    on_gpu = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    layer.backend = "torch"
    net(X).square().sum().backward()
    assert len(on_gpu) >= 2
    for name, p in net.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(on_gpu[name], p.grad, rtol=1e-3, atol=1e-3)
