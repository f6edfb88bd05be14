"""lrw.ops: autograd to second order, forward mode, opcheck on every layout, autocast, half precision, bad input."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad, gradcheck, gradgradcheck
from torch.library import opcheck

from lrw import activations, backends, dispatch
from lrw.ops import transform_weight, winograd_conv3d, winograd_domain_conv3d
from lrw_kernels.winograd import Tile, spatial_error

KEPT = (0, 3, 5, 17, 40, 63)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last_3d": lambda x: x.contiguous(memory_format=torch.channels_last_3d),
    "sliced": lambda x: torch.stack([x, x], dim=-1)[..., 0],
    "permuted": lambda x: x.permute(4, 3, 2, 1, 0).contiguous().permute(4, 3, 2, 1, 0),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
every_backend = pytest.mark.parametrize("backend", backends.available())


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def domain(x: Tensor, u: Tensor, backend: str = "auto") -> Tensor:
    return winograd_domain_conv3d(x, u, tile=2, padding=1, kept=KEPT, backend=backend)


@every_backend
@pytest.mark.parametrize("tile", [1, 2, 4, (1, 2, 3), Tile.of((2, 4, 3), origin=(1, 3, 0)), "auto"], ids=str)
@pytest.mark.parametrize("padding", [0, 1, (2, 0, 1), "same", "valid"])
def test_equals_conv3d_with_all_gradients(backend: str, tile: object, padding: object) -> None:
    x, w, b = (
        normal(*s, dtype=torch.float64, seed=i).requires_grad_()
        for i, s in enumerate([(2, 5, 6, 7, 8), (4, 5, 3, 3, 3), (4,)])
    )
    y, expected = (
        winograd_conv3d(x, w, b, padding=padding, tile=tile, backend=backend),
        F.conv3d(x, w, b, padding=padding),
    )
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-11)
    dy = normal(*y.shape, seed=9, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(y, (x, w, b), dy), torch.autograd.grad(expected, (x, w, b), dy), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


@every_backend
def test_an_empty_batch_gives_an_empty_output(backend: str) -> None:
    x, w = normal(0, 3, 5, 6, 7).requires_grad_(), normal(2, 3, 3, 3, 3).requires_grad_()
    y = winograd_conv3d(x, w, padding=1, tile=2, backend=backend)
    assert y.shape == (0, 2, 5, 6, 7)
    dx, dw = torch.autograd.grad(y.sum(), (x, w))
    assert dx.shape == x.shape
    assert torch.equal(dw, torch.zeros_like(w))


def test_unbatched_input_is_accepted_as_conv3d_does() -> None:
    x, w = normal(3, 5, 6, 7), normal(2, 3, 3, 3, 3, seed=1)
    torch.testing.assert_close(winograd_conv3d(x, w, padding=1), F.conv3d(x, w, padding=1), rtol=0, atol=1e-4)


@every_backend
@layouts
def test_gradcheck(backend: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(normal(1, 2, 3, 4, 3, dtype=torch.float64)).requires_grad_()
    u = normal(len(KEPT), 2, 2, seed=1, dtype=torch.float64).requires_grad_()
    assert gradcheck(lambda x, u: domain(x, u, backend), (x, u), check_forward_ad=True, fast_mode=True)


@layouts
def test_gradgradcheck(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(normal(1, 2, 3, 4, 3, dtype=torch.float64)).requires_grad_()
    u = normal(len(KEPT), 2, 2, seed=1, dtype=torch.float64).requires_grad_()
    assert gradgradcheck(domain, (x, u), fast_mode=True)


@layouts
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", ["forward", "input_grad", "weight_grad"])
def test_opcheck(name: str, backend: str, layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(normal(2, 2, 3, 4, 5)).requires_grad_()
    u = normal(len(KEPT), 2, 3, seed=1).requires_grad_()
    dy = layout(normal(2, 3, 3, 4, 5, seed=2)).requires_grad_()
    bias = normal(3, seed=3).requires_grad_()
    first = {"forward": (x, u, bias, None, False), "input_grad": (dy, u, [3, 4, 5]), "weight_grad": (x, dy)}[name]
    arguments = (*first, str(Tile.of(2)), [1, 1, 1], list(KEPT), False, backend)
    result = opcheck(getattr(torch.ops.lrw, f"winograd_{name}").default, arguments)
    assert set(result.values()) == {"SUCCESS"}


@layouts
def test_memory_format_follows_the_input(layout: Callable[[Tensor], Tensor]) -> None:
    x = layout(normal(2, 2, 3, 4, 5))
    y = domain(x, normal(len(KEPT), 2, 3, seed=1))
    expected = torch.channels_last_3d if layout is LAYOUTS["channels_last_3d"] else torch.contiguous_format
    assert y.is_contiguous(memory_format=expected)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last_3d], ids=["contiguous", "last"])
@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize(
    ("cin", "cout", "size"),
    [(1, 4, (3, 4, 5)), (4, 1, (3, 4, 5)), (1, 1, (3, 4, 5)), (1, 3, (1, 4, 1)), (4, 3, (1, 1, 1))],
    ids=["one channel in", "one channel out", "one channel", "one line", "one pixel"],
)
def test_layouts_are_those_of_conv3d_where_tensors_lie_both_ways(
    cin: int, cout: int, size: tuple[int, int, int], backend: str, form: torch.memory_format
) -> None:
    x = normal(2, cin, *size).to(memory_format=form).requires_grad_()
    w = normal(cout, cin, 3, 3, 3, seed=1).to(memory_format=form)
    expected = F.conv3d(x, w, padding=1)
    theirs = torch.autograd.grad(expected, x, torch.ones_like(expected))[0]
    y = winograd_conv3d(x, w, padding=1, tile=2, backend=backend)
    assert y.stride() == expected.stride()
    for dy in (torch.ones_like(y), torch.ones(()).expand(y.shape)):
        assert torch.autograd.grad(y, x, dy, retain_graph=True)[0].stride() == theirs.stride()
    with FakeTensorMode() as mode:
        fake = winograd_conv3d(mode.from_tensor(x), mode.from_tensor(w), padding=1, tile=2, backend=backend)
    assert fake.stride() == y.stride()
    calls = [winograd_conv3d(x.detach(), w, padding=1, tile=2, backend=backend) for _ in range(4)]
    assert {call.stride() for call in calls} == {y.stride()}


@pytest.mark.parametrize(
    "shape", [(2, 1, 3, 4, 5), (1, 1, 3, 1, 5), (2, 1, 1, 4, 1), (2, 4, 1, 1, 1), (2, 1, 1, 1, 1), (0, 1, 3, 4, 5)]
)
def test_what_lies_both_ways_is_what_torch_takes_it_for(shape: tuple[int, ...]) -> None:
    last, seen = torch.channels_last_3d, set()
    for order in permutations(range(5)):
        x = torch.empty_permuted(shape, order)
        if x.is_contiguous() and x.is_contiguous(memory_format=last):
            seen.add(activations.memory_format(x))
            assert (activations.memory_format(x) == last) == (x.to(memory_format=last) is x)
    assert torch.contiguous_format in seen


def test_forward_mode_follows_the_product_rule() -> None:
    x, dx = (normal(1, 2, 3, 4, 3, seed=s, dtype=torch.float64) for s in (0, 1))
    u, du = (normal(len(KEPT), 2, 2, seed=s, dtype=torch.float64) for s in (2, 3))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(domain(forward_ad.make_dual(x, dx), forward_ad.make_dual(u, du))).tangent
    torch.testing.assert_close(tangent, domain(dx, u) + domain(x, du))
    torch.testing.assert_close(torch.func.jvp(lambda x: domain(x, u), (x,), (dx,))[1], domain(dx, u))


def test_forward_mode_that_could_not_be_followed_is_refused() -> None:
    x, u = normal(1, 2, 3, 4, 3, dtype=torch.float64), normal(len(KEPT), 2, 2, seed=2, dtype=torch.float64)

    def slope(x: Tensor) -> Tensor:
        return torch.func.jvp(lambda x: domain(x, u) ** 2, (x,), (x,))[1]

    with pytest.raises(NotImplementedError, match="no forward mode inside"):
        torch.func.jvp(slope, (x,), (x,))


def test_inference_and_fake_modes_leave_nothing_behind() -> None:
    x, w, tile = normal(1, 2, 5, 5, 5), normal(2, 2, 3, 3, 3, seed=1), Tile.of((3, 1, 2))
    with torch.inference_mode():
        winograd_conv3d(x, w, padding=1, tile=tile)
    with FakeTensorMode() as mode:
        fake = winograd_conv3d(mode.from_tensor(x), mode.from_tensor(w), padding=1, tile=tile)
    y = winograd_conv3d(x, w.requires_grad_(), padding=1, tile=tile)
    y.sum().backward()
    assert fake.shape == y.shape
    assert w.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    x, w = normal(1, 8, 6, 6, 6, dtype=dtype), normal(8, 8, 3, 3, 3, seed=1, dtype=dtype)
    y, exact = winograd_conv3d(x, w, padding=1, tile=4), F.conv3d(x.double(), w.double(), padding=1)
    assert y.dtype == dtype
    # Only the result is rounded to half: the products are float32's.
    torch.testing.assert_close(
        y.double(), exact, rtol=torch.finfo(dtype).eps, atol=spatial_error(Tile.of(4), 8, 2**-23) * 60
    )


def test_autocast_brings_all_to_one_dtype() -> None:
    x, w = normal(1, 3, 5, 5, 5).requires_grad_(), normal(2, 3, 3, 3, 3, seed=1).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = winograd_conv3d(x.bfloat16(), w, padding=1)
    y.float().sum().backward()
    assert y.dtype == torch.float32
    assert w.grad is not None
    assert w.grad.dtype == torch.float32
    torch.testing.assert_close(y, F.conv3d(x.bfloat16().float(), w, padding=1), rtol=0, atol=1e-4)


def test_autocast_of_a_gpu_rounds_activations_and_no_gradient_of_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activations, "autocasts", lambda _: True)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _: torch.bfloat16)
    x, u, bias = (torch.empty(size, device="meta") for size in (1, 2, 3))
    narrow, (kept,), *cast = dispatch._autocast(x, [u], bias, x)
    assert [t.dtype for t in (narrow, *cast) if t is not None] == [torch.bfloat16, torch.float32, torch.bfloat16]
    assert kept is u
    half, (wide,), *_ = dispatch._autocast(x, [u.half()], bias.double(), None)
    assert (half.dtype, wide.dtype) == (torch.bfloat16, torch.bfloat16)
    assert dispatch._autocast(x.double(), [u], None, None)[0].dtype == torch.float64


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_compiles_without_graph_breaks(autocast: bool) -> None:
    x, w = normal(1, 4, 6, 6, 6).requires_grad_(), normal(4, 4, 3, 3, 3, seed=1).requires_grad_()
    compiled = torch.compile(lambda x, w: winograd_conv3d(x, w, padding=1).relu(), fullgraph=True, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = compiled(x, w)
    y.sum().backward()
    torch.testing.assert_close(y, F.conv3d(x, w, padding=1).relu(), rtol=0, atol=1e-4)
    assert w.grad is not None


def test_auto_backend_says_what_and_why() -> None:
    choice = backends.choose(torch.device("cpu"))
    assert choice.name in backends.available()
    assert choice.reason


X, W = normal(1, 3, 5, 5, 5), normal(2, 3, 3, 3, 3)
U = transform_weight(W, 2)
BAD_SPATIAL = {
    "input: shape": lambda: winograd_conv3d(X[0, 0], W),
    "input: 3 channels; the weights take 2": lambda: winograd_conv3d(X, W[:, :2]),
    "input: dtype torch.int64": lambda: winograd_conv3d(X.long(), W),
    "weight: shape": lambda: winograd_conv3d(X, W[0]),
    "weight: dtype torch.float64": lambda: winograd_conv3d(X, W.double()),
    "weight: on meta": lambda: winograd_conv3d(X, W.to("meta"), tile=2, padding=1),
    "bias: shape": lambda: winograd_conv3d(X, W, torch.zeros(3)),
    "stride: 2; accepted is 1": lambda: winograd_conv3d(X, W, stride=2),
    "dilation: 3": lambda: winograd_conv3d(X, W, dilation=3),
    "groups: 3": lambda: winograd_conv3d(X, W, groups=3),
    "padding: 'full'": lambda: winograd_conv3d(X, W, padding="full"),
    "padding: -1": lambda: winograd_conv3d(X, W, padding=-1),
    "padding: 'same' pads unevenly": lambda: winograd_conv3d(X, W[..., :2], padding="same"),
    "smaller than the filter": lambda: winograd_conv3d(X[..., :2], W),
    "tile: 9 outputs": lambda: winograd_conv3d(X, W, tile=9),
    "tile: 'best'": lambda: winograd_conv3d(X, W, tile="best"),
    "tile: (2, 2)": lambda: winograd_conv3d(X, W, tile=(2, 2)),
    "kernel_size: 9 taps": lambda: winograd_conv3d(normal(1, 3, 9, 9, 9), normal(2, 3, 9, 9, 9), tile=2),
    "rtol: 1e-09 is below": lambda: winograd_conv3d(X, W, rtol=1e-9),
    "backend: 'oneapi' is not one of": lambda: winograd_conv3d(X, W, backend="oneapi"),
    "backend: 'reference' computes on the cpu only": lambda: backends.backend("reference", torch.device("cuda")),
    "u: dtype torch.float64": lambda: winograd_domain_conv3d(X, U.double(), tile=2),
    "bias: on meta": lambda: winograd_conv3d(X, W, torch.zeros(2, device="meta")),
    "bias: dtype torch.float64": lambda: winograd_conv3d(X, W, torch.zeros(2).double()),
    "stride: 1.0": lambda: winograd_conv3d(X, W, stride=1.0),
    "groups: None": lambda: winograd_conv3d(X, W, groups=None),
    "padding: (1.7, 1, 1)": lambda: winograd_conv3d(X, W, padding=(1.7, 1, 1)),
    "tile: '222'": lambda: transform_weight(W, "222"),
    "weight: dtype torch.int64": lambda: transform_weight(W.long(), 2),
    "kept: 5 is not a sequence": lambda: winograd_domain_conv3d(X, U[:1], tile=2, kept=5),
    "kept: torch.bool [2]": lambda: winograd_domain_conv3d(X, U[:2], tile=2, kept=torch.tensor([False, True])),
    "u: shape": lambda: winograd_domain_conv3d(X, U[:5], tile=2),
    "kept: positions must rise": lambda: winograd_domain_conv3d(X, U[:2], tile=2, kept=[5, 3]),
    "kept: position 64 outside 0..63": lambda: winograd_domain_conv3d(X, U[:2], tile=2, kept=[5, 64]),
    "kept: no position": lambda: winograd_domain_conv3d(X, U[:0], tile=2, kept=[]),
    "origin: 2 on axis d": lambda: Tile.of(2, 3, origin=(2, 0, 0)),
}


@pytest.mark.parametrize("message", BAD_SPATIAL)
def test_bad_input_is_named(message: str) -> None:
    with pytest.raises(ValueError) as caught:
        BAD_SPATIAL[message]()
    assert message in str(caught.value)


def test_other_types_are_named() -> None:
    with pytest.raises(ValueError, match="input: a list"):
        winograd_conv3d([1, 2], W)  # type: ignore[arg-type]


PLACE = ("F(2x2x2,3x3x3)", [1, 1, 1], None, False, "auto")
OPS = torch.ops.lrw
DY = torch.randn(1, 2, 5, 5, 5)
RAW: dict[str, Callable[[torch.device], object]] = {
    "u: shape (63, 3, 2); accepted is [64": lambda d: OPS.winograd_forward(
        X.to(d), U[:63].to(d), None, None, False, *PLACE
    ),
    "input: 3 channels; the weights take 2": lambda d: OPS.winograd_forward(
        X.to(d), U[:, :2].to(d), None, None, False, *PLACE
    ),
    "u: no channels": lambda d: OPS.winograd_forward(X.to(d), U[..., :0].to(d), None, None, False, *PLACE),
    "bias: shape (1,)": lambda d: OPS.winograd_forward(X.to(d), U.to(d), torch.zeros(1, device=d), None, False, *PLACE),
    "residual: shape (1, 2, 5, 5, 4)": lambda d: OPS.winograd_forward(
        X.to(d), U.to(d), None, DY[..., :4].to(d), False, *PLACE
    ),
    "residual: dtype torch.float64": lambda d: OPS.winograd_forward(
        X.to(d), U.to(d), None, DY.double().to(d), False, *PLACE
    ),
    "u: dtype torch.float64": lambda d: OPS.winograd_forward(X.to(d), U.double().to(d), None, None, False, *PLACE),
    "dy: 1 channels": lambda d: OPS.winograd_input_grad(DY[:, :1].to(d), U.to(d), [5, 5, 5], *PLACE),
    "dy: size (5, 5, 5); accepted is that of the output, (5, 5, 6)": lambda d: OPS.winograd_input_grad(
        DY.to(d), U.to(d), [5, 5, 6], *PLACE
    ),
    "input_size: [5, 5]": lambda d: OPS.winograd_input_grad(DY.to(d), U.to(d), [5, 5], *PLACE),
    "u: shape (10, 3, 2)": lambda d: OPS.winograd_input_grad(DY.to(d), U[:10].to(d), [5, 5, 5], *PLACE),
    "dy: a batch of 2": lambda d: OPS.winograd_weight_grad(X.to(d), DY.expand(2, 2, 5, 5, 5).to(d), *PLACE),
    "dy: size (5, 5, 4)": lambda d: OPS.winograd_weight_grad(X.to(d), DY[..., :4].to(d), *PLACE),
    "dy: dtype torch.float64": lambda d: OPS.winograd_weight_grad(X.to(d), DY.double().to(d), *PLACE),
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("message", RAW)
def test_operators_themselves_read_nothing_out_of_bounds(message: str, device: str) -> None:
    """Whoever calls them, and when they are traced: the kernels behind them know addresses only."""
    with pytest.raises(ValueError) as caught:
        RAW[message](torch.device(device))
    assert message in str(caught.value)
