"""The operator for blocks of output channels: gradients, forward mode, vmap, opcheck, dtypes, bad input."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.library import opcheck

from lrw.dispatch import convolve_blocks
from lrw.geometry import Geometry, GroupedLayer
from lrw.ops import domain_conv3d
from lrw_kernels.winograd import Tile
from verify.unit.lrw.test_ops import every_backend, layouts, normal

BLOCKS = ((2, (0, 5, 9)), (3, ()), (1, (5, 17, 40, 63)))
WHOLE = Geometry(Tile.of(2, origin=(0, 1, 0)), (1, 0, 1))
LAYER = GroupedLayer.of(WHOLE, BLOCKS)
PLACE = (LAYER.tile, list(LAYER.padding), list(LAYER.channels), list(LAYER.counts), list(LAYER.kept))
OPERATOR = torch.ops.lrw.winograd_blocks_forward


def arguments(dtype: torch.dtype = torch.float64, size: tuple[int, ...] = (2, 2, 3, 4, 3)) -> tuple[Tensor, ...]:
    """x, the weights of each block, and the bias."""
    weights = (normal(len(kept), 2, n, seed=1 + i, dtype=dtype) for i, (n, kept) in enumerate(BLOCKS))
    return (normal(*size, dtype=dtype), *weights, normal(6, seed=9, dtype=dtype))


def grouped(x: Tensor, *rest: Tensor, backend: str = "auto") -> Tensor:
    return convolve_blocks(x, rest[:3], rest[3], LAYER, backend)


def by_block(x: Tensor, *rest: Tensor, backend: str = "auto", rectified: bool = False) -> Tensor:
    """By the operators for one set of kept positions."""
    parts, biases = [], rest[3].split([n for n, _ in BLOCKS])
    for u, bias, (channels, kept) in zip(rest[:3], biases, BLOCKS, strict=True):
        if kept:
            layer = replace(WHOLE, kept=kept, rectified=rectified).arguments
            parts.append(domain_conv3d(x, u, bias, layer, backend))
        else:
            size = (len(x), channels, *WHOLE.output_size(x.shape[2:]))
            parts.append(bias.to(x.dtype).view(1, -1, 1, 1, 1).expand(size))
    return torch.cat(parts, dim=1)


@every_backend
@layouts
def test_gradients_are_those_of_the_blocks(backend: str, layout: Callable[[Tensor], Tensor]) -> None:
    x, *rest = arguments()
    inputs = [layout(x).requires_grad_(), *(t.requires_grad_() for t in rest)]
    y, expected = grouped(*inputs, backend=backend), by_block(*inputs, backend=backend)
    torch.testing.assert_close(y, expected)
    assert y.stride() == grouped(*(t.detach() for t in inputs), backend=backend).stride()
    dy = normal(*y.shape, seed=7, dtype=y.dtype)
    with_columns = [t for t in inputs if t.numel() > 0]
    ours, theirs = (torch.autograd.grad(out, with_columns, dy) for out in (y, expected))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)
    assert ours[0].stride() == theirs[0].stride()
    (alone,) = torch.autograd.grad(grouped(inputs[0].detach(), *inputs[1:], backend=backend), inputs[3], dy)
    torch.testing.assert_close(alone, theirs[2])


@layouts
def test_gradients_to_second_order_and_forward_mode(layout: Callable[[Tensor], Tensor]) -> None:
    x, *rest = arguments(size=(1, 2, 3, 4, 3))
    inputs = [layout(x).requires_grad_(), *(t.requires_grad_() for t in rest)]
    assert gradcheck(grouped, inputs, check_forward_ad=True, fast_mode=True)
    assert gradgradcheck(grouped, inputs, fast_mode=True)


@layouts
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("bias", [True, False])
def test_opcheck(bias: bool, backend: str, layout: Callable[[Tensor], Tensor]) -> None:
    x, *weights, b = arguments(torch.float32)
    given = (layout(x).requires_grad_(), [u.requires_grad_() for u in weights], b.requires_grad_() if bias else None)
    result = opcheck(OPERATOR.default, (*given, *PLACE, backend))
    assert set(result.values()) == {"SUCCESS"}


def test_forward_mode_follows_the_product_rule() -> None:
    given, moved = arguments(), [t + 1 for t in arguments()]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(t, dt) for t, dt in zip(given, moved, strict=True)]
        tangent = forward_ad.unpack_dual(grouped(*duals)).tangent
    without = torch.zeros(6, dtype=torch.float64)
    expected = by_block(moved[0], *given[1:4], without) + by_block(given[0], *moved[1:4], without)
    torch.testing.assert_close(tangent, expected + moved[4].view(1, -1, 1, 1, 1))
    _, of_x = torch.func.jvp(lambda x: grouped(x, *given[1:]), (given[0],), (moved[0],))
    torch.testing.assert_close(of_x, by_block(moved[0], *given[1:4], without))
    with pytest.raises(NotImplementedError, match="no forward mode inside"):
        torch.func.jvp(
            lambda x: torch.func.jvp(lambda x: grouped(x, *given[1:]) ** 2, (x,), (x,))[1], (x := given[0],), (x,)
        )


@pytest.mark.parametrize("size", [(0, 2, 3, 4, 3), (0, 2, 1, 4, 3)])
@every_backend
def test_an_empty_batch_gives_an_empty_output(backend: str, size: tuple[int, ...]) -> None:
    inputs = [t.requires_grad_() for t in arguments(size=size)]
    y = grouped(*inputs, backend=backend)
    assert y.shape == (0, 6, *WHOLE.output_size(size[2:]))
    (du,) = torch.autograd.grad(y.sum(), inputs[1])
    assert torch.equal(du, torch.zeros_like(du))


@every_backend
def test_an_input_without_a_voxel_gives_the_bias(backend: str) -> None:
    layer = GroupedLayer.of(replace(WHOLE, padding=(2, 0, 1)), BLOCKS)
    x, *weights, bias = arguments(size=(1, 2, 0, 4, 3))
    y = convolve_blocks(x, weights, bias, layer, backend)
    assert torch.equal(y, bias.view(1, -1, 1, 1, 1).expand(1, 6, 2, 2, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_half_precision_and_autocast_are_computed_in_float32(dtype: torch.dtype, backend: str) -> None:
    given = arguments(torch.float32)
    half = given[0].to(dtype)
    expected = by_block(half.double(), *(t.double() for t in given[1:]))
    y = grouped(half, *given[1:], backend=backend)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = grouped(half, *(t.requires_grad_() for t in given[1:]), backend=backend)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)
    y.sum().backward()
    assert given[1].grad is not None
    assert given[1].grad.dtype == torch.float32


def test_rectified_blocks_are_rectified_layers_side_by_side() -> None:
    x, *rest = (t.requires_grad_() for t in arguments())
    y = convolve_blocks(x, rest[:3], rest[3], LAYER._replace(rectified=True), "auto")
    expected = by_block(x, *rest, rectified=True)
    torch.testing.assert_close(y, expected)
    for mine, theirs in zip(*(torch.autograd.grad(out.sum(), (x, rest[0])) for out in (y, expected)), strict=True):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(ValueError, match="backend: 'cpu' computes no Winograd-ReLU layers"):
        convolve_blocks(x, rest[:3], rest[3], LAYER._replace(rectified=True), "cpu")


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_compiles_without_graph_breaks(autocast: bool) -> None:
    inputs = [t.requires_grad_() for t in arguments(torch.float32)]
    compiled = torch.compile(lambda *given: grouped(*given).relu(), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = compiled(*inputs)
    torch.testing.assert_close(y, by_block(*inputs).relu(), rtol=1e-4, atol=1e-4)
    wanted = [inputs[0], inputs[1], inputs[4]]
    expected = torch.autograd.grad(by_block(*inputs).relu().sum(), wanted)
    for mine, theirs in zip(torch.autograd.grad(y.sum(), wanted), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("over", [(0, None, None, None, None), (None, 2, None, None, 0), (1, 0, 0, 0, 0)])
def test_vmap_over_any_of_the_tensors(over: tuple[int | None, ...]) -> None:
    samples = [[t + i for t in arguments()] for i in range(2)]
    columns = zip(*samples, strict=True)
    stacked = [s[0] if d is None else torch.stack(s, dim=d) for s, d in zip(columns, over, strict=True)]
    y = torch.vmap(grouped, in_dims=over)(*stacked)
    for i in range(2):
        own = [t if d is None else t.select(d, i) for t, d in zip(stacked, over, strict=True)]
        torch.testing.assert_close(y[i], by_block(*own))


X, *U, B = arguments(torch.float32)
WRONG: dict[str, Callable[[torch.device], object]] = {
    "weights: 2 tensors; accepted is one for each of 3": lambda d: call(d, weights=U[:2]),
    "weights[2]: shape (3, 2, 1); accepted is [4, 2, 1]": lambda d: call(d, weights=[*U[:2], U[2][:3]]),
    "weights[0]: shape (3, 2, 1); accepted is [3, 2, 2]": lambda d: call(d, weights=[U[0][..., :1], *U[1:]]),
    "weights[0]: shape (3, 2)": lambda d: call(d, weights=[U[0][..., 0], *U[1:]]),
    "weights[2]: shape (4, 1, 1)": lambda d: call(d, weights=[*U[:2], U[2][:, :1]]),
    "input: 2 channels; the weights take 1": lambda d: call(d, weights=[U[0][:, :1], *U[1:]]),
    "input: no channels": lambda d: call(d, x=X[:, :0], weights=[u[:, :0] for u in U]),
    "input: shape (2, 3, 4, 3)": lambda d: call(d, x=X[0]),
    "weights[1]: dtype torch.float64": lambda d: call(d, weights=[U[0], U[1].double(), U[2]]),
    "bias: shape (5,); accepted is [6]": lambda d: call(d, bias=B[:5]),
    "bias: dtype torch.float64": lambda d: call(d, bias=B.double()),
    "is smaller than the filter": lambda d: call(d, x=X[..., :2, :]),
    "channels: (2, 3)": lambda d: call(d, channels=[2, 3]),
    "channels: (2, 3, 0)": lambda d: call(d, channels=[2, 3, 0]),
    "counts: (3, 0, 5) of 7": lambda d: call(d, counts=[3, 0, 5]),
    "counts: (4, -1, 4)": lambda d: call(d, counts=[4, -1, 4]),
    "kept: positions must rise": lambda d: call(d, kept=[5, 0, 9, *LAYER.kept[3:]]),
    "kept: position 64 outside 0..63": lambda d: call(d, kept=[*LAYER.kept[:-1], 64]),
    "kept: no position": lambda d: call(d, weights=[U[1]], bias=None, channels=[3], counts=[0], kept=[]),
    "backend: 'nosuch' is not one of": lambda d: call(torch.device("cpu"), backend="nosuch"),
}


def call(device: torch.device, **other: object) -> object:
    names = "x weights bias tile padding channels counts kept backend".split()
    given: dict[str, object] = dict(zip(names, (X, U, B, *PLACE, "auto"), strict=True)) | other
    for name in ("x", "bias"):
        given[name] = given[name].to(device) if isinstance(given[name], Tensor) else None
    given["weights"] = [u.to(device) for u in given["weights"]]  # type: ignore[attr-defined]
    return OPERATOR(*given.values())


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("message", WRONG)
def test_the_operator_itself_reads_nothing_out_of_bounds(message: str, device: str) -> None:
    with pytest.raises(ValueError) as caught:
        WRONG[message](torch.device(device))
    assert message in str(caught.value)


def test_what_is_right_computes_on_both_devices() -> None:
    for device in (torch.device("cpu"), torch.device("meta")):
        assert call(device).shape == (2, 6, 3, 2, 3)  # type: ignore[attr-defined]
