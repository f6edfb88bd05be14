"""The finder of errors and of NaN, layer by layer: values, who made what, and nothing changed."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lrw
from lrw.pruning import prune_weights
from verify.unit.lrw.small_nets import X, pruned_net, small_net, trained


@pytest.mark.parametrize("backend", ["cpu", "torch", "reference"])
@pytest.mark.parametrize("tile", [2, 4])
def test_errors_are_those_against_float64_and_within_their_bounds(tile: int, backend: str) -> None:
    net = small_net()
    exact = F.conv3d(X.double(), net[0].weight.double(), net[0].bias.double(), padding=1)
    converted = lrw.to_winograd(net, tile, backend=backend)
    report = lrw.check(converted, X)
    assert [layer.name for layer in report.layers] == ["0", "2"]
    assert [layer.tile for layer in report.layers] == list(converted.report.converted.values())
    # Float64 computes with U as it is stored.
    first, u = report.layers[0], converted[0].weight.detach().double()
    stored = lrw.ops.winograd_domain_conv3d(X.double(), u, net[0].bias.double(), tile=tile, padding=1, backend="torch")
    measured = float((converted[0](X).double() - stored).detach().abs().max() / stored.detach().abs().max())
    assert first.error == pytest.approx(measured, rel=1e-6)
    assert 0 < first.error <= first.bound < 0.01
    assert float((stored - exact).detach().abs().max()) < first.bound * float(exact.detach().abs().max())
    assert report.ok
    assert report.first_not_finite is None
    assert str(report).splitlines()[1].split() == ["0", *first.tile.split(), f"{first.error:.1e}", f"{first.bound:.1e}"]
    assert len(str(report).splitlines()) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_bounds_know_the_dtype(dtype: torch.dtype) -> None:
    backend = "torch" if dtype == torch.float64 else "cpu"  # has no kernels to compile
    report = lrw.check(lrw.to_winograd(small_net().to(dtype), backend=backend), X.to(dtype))
    eps = float(torch.finfo(dtype).eps)
    assert report.ok
    for layer in report.layers:
        assert layer.error <= layer.bound
        assert layer.bound < (1e-12 if dtype == torch.float64 else eps / 2 + 1e-4)


def low_rank() -> nn.Module:
    return trained(lrw.add_low_rank(lrw.to_winograd(small_net()), 3)).eval()


def with_holes() -> nn.Module:
    net = lrw.to_winograd(small_net())
    prune_weights(net, 0.6)
    return net


def grouped() -> nn.Module:
    net = lrw.to_winograd(nn.Sequential(nn.Conv3d(1, 40, 3)))
    mask = torch.ones(64, 1, 40, dtype=torch.bool)
    mask[:30, :, :16] = False
    net[0].keep_weights(mask)
    return lrw.compress(net)


def normed() -> nn.Module:
    net = lrw.to_winograd(small_net())
    nn.utils.parametrizations.weight_norm(net[0])
    return net


def hooked() -> nn.Module:
    net = lrw.to_winograd(small_net())
    net[0].register_forward_hook(lambda module, args, y: 3 * y)  # no error of the layer's
    return net


KINDS: dict[str, Callable[[], nn.Module]] = {
    "low rank": low_rank,
    "pruned": lambda: pruned_net()[0].eval(),
    "compressed": lambda: lrw.compress(pruned_net()[0]).eval(),
    "with holes": with_holes,
    "grouped": grouped,
    "rectified": lambda: lrw.rectify(lrw.to_winograd(small_net()), {"2": "1"}),
    "weight norm": normed,
    "hooked": hooked,
    "compiled": lambda: torch.compile(lrw.to_winograd(small_net()), backend="eager"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_is_held_against_its_own_function(kind: str) -> None:
    net = KINDS[kind]()
    net(X)
    report = lrw.check(net, X)
    assert report.layers
    assert report.not_reached == ()
    assert all(layer.error < 1e-5 for layer in report.layers)
    assert report.ok, str(report)


def test_a_layer_that_computes_something_else_is_found() -> None:
    net = lrw.to_winograd(small_net())
    inner = net[2].forward
    net[2].forward = lambda x: inner(x) + 0.5
    report = lrw.check(net, X)
    first, second = report.layers
    assert first.within
    assert not second.within
    assert not report.ok
    assert second.error == pytest.approx(0.5 / float(inner(net[1](net[0](X))).detach().abs().max()), rel=1e-5)
    assert "2: the error is larger than its bound" in str(report).splitlines()


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


class Between(nn.Module):
    """Code of its own between its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.unused = (nn.Conv3d(n, 2, 3) for n in (1, 2, 2))

    def forward(self, x: Tensor, scale: Tensor, *, power: float = 1.0) -> Tensor:
        return self.second(input=self.first(x) * (scale - 1) / (scale - 1)) ** power


def test_the_first_module_that_makes_nan_is_found() -> None:
    net = lrw.to_winograd(small_net())
    net[1] = Log()
    report = lrw.check(net, X)
    found = report.first_not_finite
    assert (found.name, found.kind, found.input_finite, found.overflows) == ("1", "Log", True, False)
    first, second = report.layers
    assert first.within
    assert (second.input_finite, second.output_finite, second.overflows) == (False, False, False)
    assert math.isnan(second.error)
    assert math.isnan(second.bound)
    assert not second.within
    assert not report.ok
    assert str(report).splitlines()[-1] == "first NaN or infinity: in the output of '1' (Log), from a finite input"


def test_nan_of_the_batch_and_of_code_between_layers_is_no_layers_fault() -> None:
    x = X.clone()
    x[0, 0, 3, 3, 3] = float("nan")
    report = lrw.check(lrw.to_winograd(small_net()), x)
    assert not report.batch_finite
    assert not report.layers[0].overflows
    assert (report.first_not_finite.name, report.first_not_finite.input_finite) == ("0", False)
    assert "the batch holds NaN or infinity" in str(report)

    net = lrw.to_winograd(Between())
    report = lrw.check(net, (X, torch.tensor(3.0)))
    assert report.ok
    assert [layer.name for layer in report.layers] == ["first", "second"]
    assert report.not_reached == ("unused",)
    assert "unused: not reached" in str(report)
    report = lrw.check(net, (X, torch.tensor(1.0)))
    found = report.first_not_finite
    assert (found.name, found.kind, found.input_finite) == ("second", "WinogradConv3d", False)
    assert str(report).endswith("its input had some already")
    assert report.batch_finite


def test_overflow_of_float16_is_told_from_nan() -> None:
    net = lrw.to_winograd(nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU()).half())
    with torch.no_grad():
        net[0].weight.mul_(1000)
    report = lrw.check(net, 100 * X.half().sign())
    assert report.layers[0].overflows
    assert report.first_not_finite.overflows
    assert str(report).endswith("'0' (WinogradConv3d), from a finite input, because it overflows")
    assert lrw.check(net.float(), 100 * X.sign()).ok


def test_neither_network_nor_batch_nor_gradients_change() -> None:
    net = lrw.to_winograd(nn.Sequential(nn.ReLU(inplace=True), nn.Conv3d(1, 2, 3), nn.BatchNorm3d(2), nn.Dropout()))
    net.train()
    net[2].eval()
    batch = X.clone().requires_grad_()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    random = torch.get_rng_state()
    report = lrw.check(net, batch)
    assert report.ok
    assert report == lrw.check(net, (batch,)), "not the same twice"
    assert torch.equal(batch, X)
    assert batch.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in net.modules()] == [True, True, True, False, True]
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    with pytest.raises(AttributeError):
        report.batch_finite = False  # type: ignore[misc]


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv(x) * float("inf"))


def test_a_layer_that_is_called_again_reports_its_worst() -> None:
    (only,) = lrw.check(lrw.to_winograd(Twice()), X).layers
    assert only.name == "conv"
    assert math.isnan(only.error)


def test_an_output_of_zeros_has_no_error() -> None:
    (only,) = lrw.check(lrw.to_winograd(nn.Sequential(nn.Conv3d(1, 1, 3, bias=False))), torch.zeros_like(X)).layers
    assert (only.error, only.bound) == (0, 0)
    assert only.within


def test_what_is_no_batch_or_has_no_layer_is_refused_and_the_networks_own_errors_pass() -> None:
    net = lrw.to_winograd(small_net()).train()
    with pytest.raises(ValueError, match="net: holds no Winograd layer"):
        lrw.check(small_net(), X)
    with pytest.raises(ValueError, match="batch: a list; accepted are a Tensor and a tuple of arguments for net"):
        lrw.check(net, [X])
    with pytest.raises(ValueError, match="input: 2 channels; the weights take 1"):
        lrw.check(net, torch.zeros(1, 2, 8, 8, 8))
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


@pytest.mark.parametrize(("tile", "reached"), [(2, (27, 64)), (4, (64, 216))])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_infinity_spread_over_the_tiles_that_read_them(
    tile: int, reached: tuple[int, int], backend: str, value: float
) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(1, 1, 3, 3, 3), torch.zeros(1, 1, 12, 12, 12)
    x[0, 0, 6, 6, 6] = value
    y = lrw.ops.winograd_conv3d(x, weight, padding=1, tile=tile, backend=backend)[0, 0]
    assert int(F.conv3d(x, weight, padding=1).isnan().sum()) >= (27 if math.isnan(value) else 0)
    assert reached[0] <= int((~y.isfinite()).sum()) <= reached[1]
    assert int(y.isnan().sum()) > 0
