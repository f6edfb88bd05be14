"""`lrw.accelerate`: the same function, class, keys and hooks; the network's own forward wherever the program cannot."""

import copy
import gc
import io
import pickle
import tracemalloc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.overrides import TorchFunctionMode

import lrw
from lrw import engine
from lrw.engine import PROGRAM
from lrw.geometry import Geometry
from lrw.nets import C3D, R3D18, UNet3D
from lrw_kernels.winograd import Tile
from verify.unit.trace.nets import settled

X = torch.randn(1, 2, 6, 9, 8, generator=torch.Generator().manual_seed(3))


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv3d(2, 20, 3, padding=1), nn.BatchNorm3d(20), nn.ReLU(), nn.Conv3d(20, 5, 3, padding=1)
    return settled(nn.Sequential(*layers))


def same(fast: nn.Module, net: nn.Module, x: Tensor = X) -> str:
    """What computed the pass, whose result is that of `net`."""
    with torch.no_grad():
        y, expected = fast(x), net(x)
    assert y.dtype == expected.dtype
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    return fast.report.last


@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: C3D(1, 3, (4, 9, 12), 4), (2, 1, 4, 9, 12)),
        (lambda: R3D18(2, 3, (3, 32, 32), 4), (1, 2, 3, 32, 32)),
        (lambda: UNet3D(1, 3, 4, 2), (1, 1, 8, 12, 4)),
    ],
)
def test_networks_are_what_they_were_but_faster(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    net, x = settled(build()), torch.randn(*shape)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fast = lrw.accelerate(net, x)
    assert isinstance(fast, type(net))
    assert type(fast).__name__ == type(net).__name__
    assert same(fast, net, x) == PROGRAM
    assert same(fast, net, 2 * x.to(memory_format=torch.channels_last_3d)) == PROGRAM
    assert list(fast.state_dict()) == list(before)
    assert not hasattr(net, "report")
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    report = fast.report
    assert report.error <= 1e-5
    assert report.speedup == report.before_ms / report.after_ms > 0
    assert 0 < report.moved_bytes < report.apart_bytes
    assert "times as fast" in str(report)
    assert all(part.ms >= 0 and part.name in str(report) for part in report.parts)


class Elsewhere:
    """Passes that are the network's own: how to make one, and the reason that is given."""

    @staticmethod
    def double(fast: nn.Module) -> Tensor:
        return fast.double()(X.double())

    @staticmethod
    def training(fast: nn.Module) -> Tensor:
        return fast.train()(X)

    @staticmethod
    def part_in_training(fast: nn.Module) -> Tensor:
        fast[1].train()
        return fast(X)

    @staticmethod
    def gradients(fast: nn.Module) -> Tensor:
        with torch.enable_grad():
            return fast(X)

    @staticmethod
    def hooks(fast: nn.Module) -> Tensor:
        fast[0].register_forward_hook(lambda *_: None)
        return fast(X)

    @staticmethod
    def meta(fast: nn.Module) -> Tensor:
        return fast.to("meta")(X.to("meta"))


REASONS = {
    "double": "none of it can be computed by kernels, because of aten.conv3d at '0' [1, 20, 6, 9, 8]: an input is no",
    "training": "training mode",
    "part_in_training": "training mode",
    "gradients": "gradients are wanted",
    "hooks": "hooks",
    "meta": "the arguments are not plain tensors",
}


@pytest.mark.parametrize("what", REASONS)
def test_what_the_program_cannot_is_the_networks_own(what: str) -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    do = getattr(Elsewhere, what)
    with torch.no_grad():
        torch.testing.assert_close(do(fast), do(net), rtol=0, atol=0)
    assert REASONS[what] in fast.report.last


def test_gradients_are_the_networks_own() -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    for one in (net, fast):
        one(X).square().sum().backward()
    for mine, theirs in zip(fast.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad)


def replaced(net: nn.Module) -> None:
    net[2] = nn.Sigmoid().eval()


def grown(net: nn.Module) -> None:
    net.append(nn.Sigmoid().eval())


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "data": lambda net: net[3].weight.data.mul_(1.5),
    "numpy": lambda net: net[0].bias.detach().numpy().__iadd__(1),
    "buffer": lambda net: net[1].running_mean.data.add_(0.5),
    "load_state_dict": lambda net: net.load_state_dict({k: 2 * v for k, v in net.state_dict().items()}),
    "new parameter": lambda net: setattr(net[3], "weight", nn.Parameter(net[3].weight.detach() * 2)),
    "without bias": lambda net: setattr(net[3], "bias", None),
    "another layer": replaced,
    "one more layer": grown,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_the_network_are_followed(change: str) -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    before = fast(X)
    for one in (net, fast):
        CHANGES[change](one)
    for _ in range(2):
        assert same(fast, net) == PROGRAM
    assert not torch.allclose(fast(X), before)


class Scaled(nn.Module):
    """What it computes depends on a number, a flag, a list, a tensor that is no buffer, and a part it takes by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv3d(2, 20, 3, padding=1), nn.LeakyReLU(0.1)
        self.scale, self.doubled, self.factors, self.offset = 1.5, False, [1.0, 2.0], torch.zeros(1, 20, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.conv(x)) * self.scale * self.factors[1] + self.offset
        return y + y if self.doubled else y


class Another(nn.LeakyReLU):
    """A class of another kind of work."""

    def forward(self, input: Tensor) -> Tensor:
        return torch.relu(input)


SETTINGS: dict[str, Callable[[nn.Module], object]] = {
    "number": lambda net: setattr(net, "scale", 7.0),
    "flag": lambda net: setattr(net, "doubled", True),
    "list": lambda net: net.factors.__setitem__(1, 3.0),
    "tensor": lambda net: net.offset.add_(5),
    "tensor, uncounted": lambda net: net.offset.numpy().__iadd__(5),
    "slope": lambda net: setattr(net.act, "negative_slope", 0.9),
    "padding": lambda net: setattr(net.conv, "padding", (0, 0, 0)),
    "forward": lambda net: setattr(net.act, "forward", torch.relu),
    "class": lambda net: setattr(net.act, "__class__", Another),
    "dictionary": lambda net: net.conv.__dict__.update(settled(nn.Conv3d(2, 20, 3, padding=1)).__dict__),
}


@pytest.mark.parametrize("change", SETTINGS)
def test_what_is_set_on_modules_is_followed(change: str) -> None:
    torch.manual_seed(2)
    net = settled(Scaled())
    fast = lrw.accelerate(net, X)
    before = fast(X)
    for one in (net, fast):
        torch.manual_seed(5)
        SETTINGS[change](one)
    for _ in range(2):
        assert same(fast, net) == PROGRAM
    with torch.no_grad():
        after = fast(X)
    assert after.shape != before.shape or not torch.allclose(after, before)


def test_shallow_copies_are_networks_of_their_own() -> None:
    fast = lrw.accelerate(small(), X)
    replica = copy.copy(fast)
    replica._modules = dict(fast._modules)
    replica._modules["0"] = nn.Conv3d(2, 20, 3, padding=1).eval()
    plain = nn.Sequential(replica[0], *list(lrw.revert(fast))[1:])
    assert same(replica, plain) == PROGRAM
    assert same(fast, lrw.revert(fast)) == PROGRAM
    with torch.no_grad():
        torch.testing.assert_close(fast[:2](X), lrw.revert(fast)[:2](X))


def test_hooks_on_the_whole_run_once() -> None:
    net = small()
    net.register_forward_hook(lambda module, args, y: y * 2)
    fast = lrw.accelerate(net, X)
    assert fast.report.error <= 1e-5
    assert same(fast, net) == PROGRAM
    for one in (net, fast):
        one.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
        one[0].bias.data.add_(1)
    assert same(fast, net) == PROGRAM


def test_global_hooks_and_modes_go_to_the_layers() -> None:
    net = small()
    fast = lrw.accelerate(net, X)

    def tripled(module: nn.Module, args: object, y: Tensor) -> Tensor | None:
        return y * 3 if isinstance(module, nn.Conv3d) else None

    handle = register_module_forward_hook(tripled)
    try:
        assert "hooks" in same(fast, net)
    finally:
        handle.remove()
    with Doubling():
        assert "mode" in same(fast, net)
    with torch.device("cpu"):
        assert same(fast, net) == PROGRAM


class Doubling(TorchFunctionMode):
    """Convolutions give twice as much."""

    def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        y = function(*args, **(kwargs or {}))
        return 2 * y if function is torch.conv3d else y


def test_tangents_are_the_networks_own() -> None:
    net = small().requires_grad_(False)
    fast, tangent = lrw.accelerate(net, X), torch.randn_like(X)
    for other in (fast, copy.deepcopy(fast)):
        y, dy = torch.func.jvp(other, (X,), (tangent,))
        expected, d_expected = torch.func.jvp(net, (X,), (tangent,))
        torch.testing.assert_close(y, expected)
        torch.testing.assert_close(dy, d_expected)


def test_slices_of_inputs_are_read_where_they_lie() -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    large = torch.randn(1, 2, 12, 15, 8).to(memory_format=torch.channels_last_3d)
    for x in (
        large[:, :, 3:9, 2:11],
        torch.randn(1, 2, 6, 9, 16)[..., ::2],
        X.transpose(3, 4).contiguous().transpose(3, 4),
    ):
        with torch.no_grad():
            torch.testing.assert_close(fast(x), net(x), rtol=1e-4, atol=1e-5)
        assert fast.report.last == PROGRAM


def test_a_program_that_cannot_be_built_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fast = lrw.accelerate(small(), X)
    tried: list[int] = []
    build = engine.build
    monkeypatch.setattr(engine, "build", lambda *args: tried.append(1) or build(*args))
    with torch.no_grad():
        fast[3].bias[0] = torch.nan
        for _ in range(3):
            fast(X)
    assert len(tried) == 1
    assert "NaN" in fast.report.last


def test_writes_during_a_build_are_seen_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    build = engine.build

    def disturbed(*args: Any) -> Any:
        made = build(*args)
        fast[3].bias.data.add_(1)
        return made

    with torch.no_grad():
        fast[3].bias.data.add_(1)
        monkeypatch.setattr(engine, "build", disturbed)
        fast(X)
        monkeypatch.undo()
        net[3].bias.data.add_(2)
        assert same(fast, net) == PROGRAM


def test_the_users_network_and_input_stay_as_they_are() -> None:
    net, x = small(), X.clone()
    net.report = "mine"  # type: ignore[assignment]
    fast = lrw.accelerate(net, x)
    assert torch.equal(x, X)
    assert net.report == "mine"
    assert lrw.revert(fast).report == "mine"
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        net.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    with torch.inference_mode():
        made = lrw.accelerate(small(), X)
    made.train()(X).sum().backward()
    assert made[0].weight.grad is not None


class Reporting(nn.Module):
    """It has a method of that name."""

    def report(self) -> str:
        return "fine"


class Doubled(nn.Module):
    """It writes to its input."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x.mul_(2))


def test_weights_are_there_once() -> None:
    """Beside the network's own and the program's there are no arrays that nobody reads."""
    tracemalloc.start()
    try:
        fast = lrw.accelerate(small(), X, measure=False)
        gc.collect()
        arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
        held = sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([arrays]).traces)
    finally:
        tracemalloc.stop()
    assert held < fast.report.weights_bytes / 4


def test_weights_the_program_cannot_have_are_the_networks_own() -> None:
    fast = lrw.accelerate(small(), X)
    fast[3].weight.data[0] = torch.nan
    with torch.no_grad():
        assert fast(X).isnan().any()
        assert "holds NaN or infinity" in fast.report.last
        fast[3].weight.data.fill_(1)
        assert fast(X).isfinite().all()
        assert fast.report.last == PROGRAM


def test_copies_and_files_are_accelerated_too() -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    file = io.BytesIO()
    torch.save(fast.state_dict(), file)
    for other in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
        assert isinstance(other, type(net))
        assert same(other, net) == PROGRAM
        other[0].weight.data.zero_()
        assert same(fast, net) == PROGRAM
    file.seek(0)
    net.load_state_dict(torch.load(file))


def test_revert_gives_the_plain_network_with_todays_weights() -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    fast[0].weight.data.mul_(2)
    plain = lrw.revert(fast)
    assert type(plain) is type(net)
    assert set(vars(plain)) == set(vars(net))
    assert same(fast, plain) == PROGRAM
    assert lrw.revert(net) is net
    again = lrw.accelerate(fast, X)
    assert same(again, plain) == PROGRAM


def test_hooks_on_the_whole_and_a_forward_of_its_own_stay() -> None:
    net = small()
    seen: list[Tensor] = []
    net.register_forward_hook(lambda module, args, y: seen.append(y))
    layers = net.forward
    net.forward = lambda x: layers(x) * 2  # type: ignore[method-assign]
    fast = lrw.accelerate(net, X)
    seen.clear()
    assert same(fast, net) == PROGRAM
    assert len(seen) == 2
    with torch.no_grad():
        torch.testing.assert_close(fast(X[..., :7]), net(X[..., :7]))
    assert "forward" in vars(lrw.revert(fast))


def test_threads_may_share_it() -> None:
    net = small()
    fast = lrw.accelerate(net, X)
    inputs = [torch.randn_like(X) for _ in range(24)]

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return fast(x)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, inputs))
    with torch.no_grad():
        for x, y in zip(inputs, results, strict=True):
            torch.testing.assert_close(y, net(x), rtol=1e-4, atol=1e-4)


def test_pruned_networks_run_with_the_columns_they_have() -> None:
    net = lrw.to_winograd(small())
    for layer in (net[0], net[3]):
        layer.keep(range(0, 64, 2))
    fast = lrw.accelerate(net, X)
    assert same(fast, net) == PROGRAM
    fast[3].mask[:8] = False
    net[3].mask[:8] = False
    assert same(fast, net) == PROGRAM
    assert same(lrw.accelerate(lrw.compress(net), X), net) == PROGRAM


def test_blocks_of_output_channels_are_one_part_and_followed() -> None:
    blocks = ((16, tuple(range(0, 64, 2))), (5, ()), (17, (1, 5, 9)))
    net = nn.Sequential(lrw.GroupedConv3d(X.shape[1], blocks, Geometry(Tile.of(2), (1, 1, 1)), bias=True), nn.ReLU())
    with torch.no_grad():
        for p in net.parameters():
            p.normal_()
    fast = lrw.accelerate(net.eval(), X)
    assert same(fast, net) == PROGRAM
    assert [part.name for part in fast.report.parts] == ["0"]
    with torch.no_grad():
        fast[0].weight[2].mul_(2)
        net[0].weight[2].mul_(2)
    assert same(fast, net) == PROGRAM


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lrw.accelerate(small(), X.double()), "net: torch.export cannot follow it: .*double"),
        (lambda: lrw.accelerate(small(), X[0, 0]), r"got input of size: \[6, 9, 8\]"),
        (lambda: lrw.accelerate(small(), X[:0]), r"example_input: float32 \[0, 2, 6, 9, 8\] on cpu; accepted"),
        (lambda: lrw.accelerate(small(), (3, "x")), "example_input: a tuple; accepted is a tensor, or a tuple"),
        (lambda: lrw.accelerate(small(), None), "example_input: a NoneType; accepted"),
        (lambda: lrw.accelerate(small(), X, threads=0), "threads: 0; accepted"),
        (lambda: lrw.accelerate(nn.Sequential(nn.Flatten(2), nn.Softmax(2)), X), "none of it .*aten.flatten at '0'"),
        (lambda: lrw.accelerate(torch.relu, X), "net: a builtin_function_or_method"),
        (lambda: lrw.accelerate(Reporting(), X), "net: has a part called 'report'"),
        (lambda: lrw.accelerate(Doubled(), X), "net: writes to its input"),
    ],
)
def test_what_cannot_be_accelerated_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_vectors_with_ones_behind_keep_their_shape() -> None:
    net = nn.Sequential(nn.Conv3d(2, 4, 3), nn.AdaptiveAvgPool3d(1), nn.Flatten(2)).eval()
    with torch.no_grad():
        fast = lrw.accelerate(net, X)
        assert fast(X).shape == net(X).shape == (1, 4, 1)
        torch.testing.assert_close(fast(X), net(X), rtol=1e-4, atol=1e-5)


class Counts(nn.Module):
    """Sets something on itself in the first passes, or in all."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.inner, self.calls, self.last = nn.Conv3d(2, 3, 3), 0, last

    def forward(self, x: Tensor) -> Tensor:
        self.calls = min(self.calls + 1, self.last)
        return self.inner(x)


def test_what_a_first_pass_sets_is_not_a_change_and_what_every_pass_sets_is_refused() -> None:
    fast = lrw.accelerate(nn.Sequential(Counts(1), nn.ReLU()).eval(), X)
    built = dict(fast.__dict__["_lrw"].built)
    with torch.no_grad():
        fast(X)
    assert fast.report.last == PROGRAM
    assert fast.__dict__["_lrw"].built == built
    with pytest.raises(ValueError, match=r"^net: sets Counts\.calls with every call; accepted is a function"):
        lrw.accelerate(nn.Sequential(Counts(1000)).eval(), X)


def test_the_report_says_at_once_that_hooks_inside_keep_the_program_from_running() -> None:
    net = small()
    net[0].register_forward_hook(lambda *_: None)
    assert lrw.accelerate(net, X).report.last == "a module inside has hooks"


def test_an_accelerated_network_goes_with_its_last_reference() -> None:
    fast = lrw.accelerate(small(), X)
    gone = weakref.ref(fast)
    del fast
    assert gone() is None


def test_an_attribute_called_report_inside_is_followed() -> None:
    net = small()
    net[1].report = 1
    fast = lrw.accelerate(net, X)
    built = dict(fast.__dict__["_lrw"].built)
    fast[1].report = 2
    with torch.no_grad():
        fast(X)
    assert fast.__dict__["_lrw"].built != built
