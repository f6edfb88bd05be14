"""What the vector kernels take and give: layouts, dtypes, epilogues, kept weights, scratch."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import lrw
from bench.layers import CPU, Layer
from lrw import backends
from lrw.backends import cpu
from lrw.geometry import Geometry
from lrw.nn import CompressedConv3d, WinogradConv3d
from lrw.ops import winograd_conv3d
from lrw.unchanged import Derived
from lrw_kernels.codegen.machine import AVX512
from lrw_kernels.cpu.winograd import problem
from lrw_kernels.program.layer import MOST_FORMS, dense, runner
from lrw_kernels.winograd import Tile

MIB = 1 << 20


def layer(cin: int = 20, cout: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, cin, 6, 7, 9, dtype=dtype), torch.randn(cout, cin, 3, 3, 3, dtype=dtype) / (27 * cin) ** 0.5


def compute(x: Tensor, w: Tensor, **options: object) -> Tensor:
    return winograd_conv3d(x, w, padding=1, tile=2, backend="cpu", **options)  # type: ignore[arg-type]


def test_auto_takes_the_vector_kernels_on_a_cpu_and_says_so() -> None:
    choice = backends.choose(torch.device("cpu"))
    assert choice.name == "cpu"
    assert "kernels" in choice.reason


@pytest.mark.parametrize(
    "view", ["contiguous", "channels_last", "sliced", "pixels apart", "expanded", "reversed axes", "one channel"]
)
def test_any_layout_gives_the_same_numbers(view: str) -> None:
    x, w = layer()

    def last(t: Tensor) -> Tensor:
        return t.to(memory_format=torch.channels_last_3d)

    forms = {
        "contiguous": x,
        "channels_last": last(x),
        "sliced": torch.cat([x, x], 1)[:, 20:, :, :, :],
        "pixels apart": last(torch.cat([x, 1e9 * x], 1))[:, :20],
        "expanded": x[:1].expand(2, -1, -1, -1, -1),
        "reversed axes": x.permute(0, 1, 4, 3, 2).contiguous().permute(0, 1, 4, 3, 2),
        "one channel": x[:, :1],
    }
    given = forms[view]
    weight = w[:, :1] if view == "one channel" else w
    y = compute(given, weight)
    torch.testing.assert_close(y, F.conv3d(given, weight, padding=1), rtol=1e-5, atol=1e-5)
    assert y.is_contiguous(memory_format=torch.channels_last_3d if view == "channels_last" else torch.contiguous_format)


def test_a_single_pixel_may_have_any_stride() -> None:
    x = torch.randn(1, 16, 1, 20, 20).contiguous(memory_format=torch.channels_last_3d).permute(0, 1, 3, 4, 2)
    far = torch.as_strided(torch.randn(6400), (1, 16, 20, 20, 1), (6400, 1, 320, 16, 1 << 32))
    w = torch.randn(8, 16, 3, 3, 3)
    for given in (x, far):
        torch.testing.assert_close(compute(given, w), F.conv3d(given, w, padding=1), rtol=1e-4, atol=1e-4)


def test_lazily_negated_tensors_are_negated() -> None:
    x, w = layer()
    expected = F.conv3d(-x, w, padding=1)
    torch.testing.assert_close(compute(torch._neg_view(x), w), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(compute(x, torch._neg_view(w)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_traces_hold_no_weights_of_their_own() -> None:
    x, w = layer()
    with torch.no_grad():
        for _ in range(3):
            compute(x, w)
        traced = torch.jit.trace(compute, (x, w), check_trace=False)
        torch.testing.assert_close(traced(x, 2 * w), 2 * traced(x, w), rtol=1e-4, atol=1e-4)
    symbolic = make_fx(lambda a, b: compute(a, b), tracing_mode="symbolic")(x, w)
    torch.testing.assert_close(symbolic(x, 2 * w), compute(x, 2 * w), rtol=1e-4, atol=1e-4)


def test_weights_changed_in_inference_mode_are_seen() -> None:
    x, w = layer()
    with torch.inference_mode():
        w = w.clone()
        for _ in range(3):
            compute(x, w)
        w[3, 1, 1, 1, 1] = 50
        torch.testing.assert_close(compute(x, w), F.conv3d(x, w, padding=1), rtol=1e-4, atol=1e-3)


def test_autocast_takes_the_residual_along() -> None:
    x, w = layer(cout=20)
    with torch.autocast("cpu", torch.bfloat16):
        y = compute(x.bfloat16(), w, residual=x.bfloat16())
    torch.testing.assert_close(y, compute(x.bfloat16().float(), w) + x.bfloat16().float(), rtol=1e-5, atol=1e-5)


def test_no_channels_are_named() -> None:
    x, w = layer()
    for weight in (w[:0], w[:, :0]):
        with pytest.raises(ValueError, match=r"weight: shape .* at least one channel"):
            compute(x[:, : weight.shape[1]], weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    """Widened in the kernel: the result is the float32 one, rounded to nearest even."""
    x, w = layer(dtype=dtype)
    wide = compute(x.float(), w.float())
    half = compute(x, w)
    assert half.dtype == dtype
    assert torch.equal(half, wide.to(dtype))


def test_relu_keeps_nan_and_the_residual_may_be_the_input() -> None:
    x, w = layer(cout=20)
    x[0, 0, 0, 0, 0] = float("nan")
    with torch.no_grad():
        y = compute(x, w, residual=x, relu=True)
    expected = torch.relu(F.conv3d(x, w, padding=1) + x)
    assert torch.equal(y.isnan() | expected.isnan(), y.isnan()), "what is NaN in torch is NaN here"
    clean = ~y.isnan()
    torch.testing.assert_close(y[clean], expected[clean], rtol=1e-5, atol=1e-5)


def test_fused_and_separate_epilogues_agree_and_have_gradients() -> None:
    x, w = layer(cout=20)
    bias = torch.randn(20)
    fused = compute(x, w, bias=bias, residual=x, relu=True)
    inputs = [t.clone().requires_grad_() for t in (x, w, bias)]
    y = compute(inputs[0], inputs[1], bias=inputs[2], residual=inputs[0], relu=True)
    torch.testing.assert_close(y, fused, rtol=1e-6, atol=1e-6)
    y.sum().backward()
    wide = [t.detach().double().requires_grad_() for t in inputs]
    torch.relu(F.conv3d(*wide, padding=1) + wide[0]).sum().backward()
    for ours, theirs in zip(inputs, wide, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad.float(), rtol=1e-4, atol=1e-3)


def test_a_wrong_residual_is_named() -> None:
    x, w = layer()
    with pytest.raises(ValueError, match="residual: shape"):
        compute(x, w, residual=x)
    with pytest.raises(ValueError, match="residual: dtype"):
        compute(x, torch.cat([w, w])[:20], residual=x.double())


def test_empty_batches_pass() -> None:
    x, w = layer()
    w.requires_grad_()
    y = compute(x[:0], w)
    assert y.shape == (0, 12, 6, 7, 9)
    y.sum().backward()
    assert torch.equal(w.grad, torch.zeros_like(w))


@pytest.mark.parametrize("change", ["in place", "data", "optimizer", "load_state_dict", "new storage", "inference"])
def test_changed_weights_are_seen(change: str) -> None:
    x, _ = layer()
    net = nn.Sequential(WinogradConv3d(20, 12, padding=1, backend="cpu"))
    weight = net[0].weight
    with torch.no_grad():
        for _ in range(3):
            net(x)
        if change == "in place":
            weight.mul_(2)
        elif change == "data":
            weight.data.mul_(2)
        elif change == "load_state_dict":
            net.load_state_dict({k: v * 2 if v.is_floating_point() else v for k, v in net.state_dict().items()})
        elif change == "new storage":
            weight.data = weight.data * 2
    if change == "optimizer":
        weight.grad = torch.ones_like(weight)
        torch.optim.SGD(net.parameters(), lr=0.1).step()
    if change == "inference":
        with torch.inference_mode():
            weight.mul_(2)
    with torch.no_grad():
        fresh = WinogradConv3d(20, 12, padding=1, backend="reference")
        fresh.load_state_dict(net[0].state_dict())
        torch.testing.assert_close(net(x), fresh(x), rtol=1e-4, atol=1e-4)


def test_values_are_kept_from_the_second_time_and_go_with_the_tensor() -> None:
    derived: Derived[list[int]] = Derived()
    tensor = torch.arange(6.0)
    assert derived.get(tensor, "key", lambda: [1]) is None
    first = derived.get(tensor, "key", lambda: [2])
    assert first == [2]
    assert derived.get(tensor, "key", lambda: [3]) is first
    assert derived.get(tensor, "other", lambda: [4]) is None
    tensor += 1
    assert derived.get(tensor, "key", lambda: [5]) is None
    assert derived.get(tensor, "key", lambda: [6]) == [6]
    del tensor
    assert derived.values() == []


@pytest.mark.parametrize("case", CPU, ids=lambda case: case.name)
def test_scratch_stays_within_64_mib(case: Layer) -> None:
    kept = tuple(range(0, 216, 2))
    for columns in (None, kept):
        arguments = ("F(4x4x4,3x3x3)", (1, 1, 1), columns, True, 1, case.size, (case.cin, case.cout), "float32")
        layer = problem.of(*arguments, AVX512, 2)
        for way in (problem.FORWARD, problem.INPUT_GRAD, problem.WEIGHT_GRAD):
            assert runner(layer, dense(layer, way)).program.buffer_bytes <= 64 * MIB


def test_compressed_layers_agree_with_their_masked_ones() -> None:
    x, _ = layer()
    masked = WinogradConv3d(20, 12, padding=1, tile=Tile.of(2, 3), backend="cpu")
    masked.keep(range(0, 64, 3))
    with torch.no_grad():
        assert torch.equal(CompressedConv3d.of(masked)(x), masked(x))


def test_warmup_changes_nothing_and_packs_weights() -> None:
    net = nn.Sequential(WinogradConv3d(20, 12, padding=1, backend="cpu"), nn.BatchNorm3d(12))
    x, _ = layer()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seconds = lrw.warmup(net, x, backward=True)
    assert seconds > 0
    assert net.training
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert cpu.PANELS.get(net[0].weight, (cpu.host(), "float32", False), lambda: pytest.fail("not packed")) is not None


def test_weights_used_once_are_not_kept() -> None:
    geometry = Geometry(Tile.of(2, 3), (1, 1, 1))
    x, u = torch.randn(1, 5, 5, 5, 16), torch.randn(64, 16, 16)
    before = len(cpu.PANELS.values())
    cpu.forward(x, u, geometry)
    assert len(cpu.PANELS.values()) == before
    cpu.forward(x, u, geometry)
    assert len(cpu.PANELS.values()) == before + 1


def test_a_new_form_is_built_under_a_profiler() -> None:
    """Profilers and debuggers hold references to what functions have: nothing may depend on how many there are."""
    x, w = torch.randn(1, 3, 5, 4, 7), torch.randn(2, 3, 3, 3, 3)
    seen: list[str] = []
    sys.setprofile(lambda frame, event, _: seen.append(event) if len(seen) < 9 else None)
    try:
        y = winograd_conv3d(x, w, padding=1, tile=2)
    finally:
        sys.setprofile(None)
    assert seen
    torch.testing.assert_close(y, F.conv3d(x, w, padding=1), rtol=1e-4, atol=1e-4)


def test_forms_of_calls_do_not_add_up_without_end() -> None:
    p = problem.of("F(2x2x2,3x3x3)", (1, 1, 1), None, False, 1, (4, 4, 4), (3, 5), "float32", AVX512, 1)
    form = dense(p, problem.FORWARD)
    first = runner(p, form)
    assert runner(p, form) is first
    for i in range(1, 70):
        n, d, h, w = form.first
        runner(p, form._replace(first=(n + 64 * i, d, h, w)))
    assert len(p.passes) == MOST_FORMS
    assert runner(p, form) is not first
