"""Whatever public functions are called with: they work, or raise what their docstrings say, in one line that names an
argument. Only what a network or a function of the caller's raises passes through.
"""

import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import lrw
from lrw import ops, pruning
from lrw.pruning import Granularity

X = torch.randn(2, 4, 5, 6, 5, generator=torch.Generator().manual_seed(0))
CALLERS = {"_call_impl", "_call_impl_with_forward"}  # torch's frames around what a module of the caller's does
OF_THE_SYSTEM = (OSError, ImportError)  # with a path or a name that no line of ours shortens
MOST = 1500


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 3, padding=1))


def winograd() -> nn.Module:
    return lrw.to_winograd(plain(), 2)


def low_rank() -> nn.Module:
    return lrw.add_low_rank(winograd(), 2)


def scored() -> lrw.ColumnPruner:
    net = low_rank()
    pruner = lrw.ColumnPruner(net, 0.5)
    net(X).sum().backward()
    pruner.observe()
    return pruner


def trained() -> dict[str, Any]:
    net = low_rank()
    return {"net": net, "optimizer": torch.optim.AdamW(net.parameters())}


Call = tuple[Callable[..., object], Callable[[Path], dict[str, Any]]]
CALLS: dict[str, Call] = {
    "accelerate": (lrw.accelerate, lambda _: {"net": plain(), "example_input": X, "rtol": 1e-4, "measure": False,
                                              "threads": 1}),
    "activation_density": (lrw.activation_density, lambda _: {"net": winograd(), "example_input": X}),
    "add_low_rank": (lrw.add_low_rank, lambda _: {"net": winograd(), "rank": 2, "init": "principal", "units": "none"}),
    "check": (lrw.check, lambda _: {"net": winograd(), "batch": X}),
    "compress": (lrw.compress, lambda _: {"net": winograd(), "example_input": X, "inplace": False}),
    "distillation_loss": (lrw.distillation_loss, lambda _: {
        "logits": torch.randn(3, 4), "teacher": torch.randn(3, 4), "labels": torch.tensor([0, 1, 2]), "weight": 0.5,
        "temperature": 4.0, "label_smoothing": 0.0}),
    "forget": (lrw.forget, lambda _: {"net": winograd()}),
    "load": (lrw.load, lambda folder: {"path": folder / "saved.safetensors", "skeleton": plain()}),
    "load_plan": (lrw.load_plan, lambda folder: {"path": folder / "plan.json"}),
    "merge_low_rank": (lrw.merge_low_rank, lambda _: {"net": low_rank()}),
    "print_trainable_parameters": (lrw.print_trainable_parameters, lambda _: trained()),
    "prune": (lrw.prune, lambda _: {
        "net": plain(), "batches": [X], "sparsity": 0.5, "multiplies": None, "tile": "auto", "spare": None,
        "granularity": Granularity(), "voxels": 1000, "ridge": 0.03, "seed": 0, "scores": None, "forward": None,
        "checkpoint": None, "progress": False}),
    "rectify": (lrw.rectify, lambda _: {"net": winograd(), "relus": {"2": "1"}}),
    "revert": (lrw.revert, lambda _: {"net": plain()}),
    "save": (lrw.save, lambda folder: {"net": winograd(), "path": folder / "new.safetensors"}),
    "save_plan": (lrw.save_plan, lambda folder: {"path": folder / "new.json"}),
    "to_spatial": (lrw.to_spatial, lambda _: {"net": winograd(), "inplace": False}),
    "to_winograd": (lrw.to_winograd, lambda _: {"net": plain(), "tile": 2, "example_input": None, "filter": None,
                                                "rtol": 0.01, "units": "none", "backend": "auto", "inplace": False}),
    "training_size": (lrw.training_size, lambda _: trained()),
    "trust": (lrw.trust, lambda _: {"net": winograd(), "every": 0}),
    "warmup": (lrw.warmup, lambda _: {"net": winograd(), "example_input": X, "backward": False}),
    "ColumnPruner": (lrw.ColumnPruner, lambda _: {
        "net": low_rank(), "sparsity": 0.5, "score": "product", "scope": "layer", "stages": 1,
        "granularity": Granularity(), "example_input": X}),
    "ColumnPruner.prune": (lambda calibration: scored().prune(calibration=calibration), lambda _: {"calibration": [X]}),
    "PruningSchedule": (lrw.PruningSchedule, lambda _: {
        "pruner": scored(), "score": 2, "every": 3, "calibration": None}),
    "keep_nonzero": (pruning.keep_nonzero, lambda _: {"net": winograd()}),
    "weight_density": (pruning.weight_density, lambda _: {"net": winograd()}),
    "SpatialPruner": (pruning.SpatialPruner, lambda _: {"net": plain(), "tile": 2, "spare": []}),
    "prune_weights": (pruning.prune_weights, lambda _: {"net": winograd(), "sparsity": 0.5, "measure": "magnitude"}),
    "winograd_conv3d": (ops.winograd_conv3d, lambda _: {
        "input": X, "weight": torch.randn(3, 4, 3, 3, 3), "bias": torch.randn(3), "padding": 1, "tile": 2,
        "residual": None, "relu": False, "backend": "auto"}),
    "winograd_domain_conv3d": (ops.winograd_domain_conv3d, lambda _: {
        "input": X, "u": torch.randn(64, 4, 3), "tile": 2, "kernel_size": 3, "padding": 1, "kept": None,
        "backend": "auto"}),
    "transform_weight": (ops.transform_weight, lambda _: {
        "weight": torch.randn(3, 4, 3, 3, 3), "tile": 2, "kept": None}),
}  # fmt: skip
"""A call that works, of each public function: what is called, and its arguments (with a folder of files to read)."""


ELSEWHERE = {
    "export": "verify/unit/export/test_refused.py, since a library takes seconds to build",
    "lightning_callback": "its arguments are those of PruningSchedule",
}
"""Public functions that are not called here, and why."""


class Odd:
    """Nothing that anything takes."""


JUNK: list[Callable[[], object]] = [
    *(lambda value=value: value for value in (  # type: ignore[misc]
        None, True, -1, 0, 3, 9, 2**70, 0.5, 1.0, -0.5, 1e308, float("nan"), float("inf"), "", "x" * 3000, "\0", "auto",
        b"abc", [], {}, (), (2, 4, 2), (2, 4), [1.5, 2, 3], ["0"], [3], {"0": 4}, {"0": (2, 2, 4)}, {"none": 2},
        range(3), Path("/nonexistent/a/b"), Path("/"), Granularity(1, 16), np.int64(2), np.float32(0.5),
    )),
    Odd, lambda: (lambda *_: 3), lambda: iter([X]), lambda: [X, X], lambda: (X,), lambda: {"x": X},
    nn.Module, nn.Identity, plain, winograd, low_rank, lambda: lrw.compress(winograd()), lambda: plain().double(),
    lambda: plain().half(), lambda: plain().state_dict(), lambda: nn.ModuleList([plain()]), lambda: nn.Linear(3, 3),
    lambda: nn.Conv3d(4, 4, 3, device="meta"), lambda: nn.LazyConv3d(3, 3),
    lambda: nn.utils.parametrizations.weight_norm(nn.Conv3d(4, 4, 3)),
    X.double, X.half, lambda: torch.full_like(X, float("nan")), lambda: [torch.full_like(X, float("inf"))], X.long,
    lambda: X.to("meta"), lambda: X[:0], lambda: X[0], X.to_sparse, lambda: torch.zeros(1).expand(2, 4, 5, 6, 5),
    lambda: X[:, :3], lambda: X.to(torch.cfloat), lambda: torch.tensor(3), lambda: torch.randn(3), lambda: X[..., :1],
    X.numpy, lambda: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1),
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("arguments")
    lrw.save(winograd(), made / "saved.safetensors")
    lrw.save_plan(made / "plan.json")
    return made


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts are paths too."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", CALLS)
def test_the_calls_that_are_spoilt_work(name: str, folder: Path) -> None:
    function, arguments = CALLS[name]
    assert raised(lambda: function(**arguments(folder))) is None


@pytest.mark.parametrize("name", CALLS)
@given(data=st.data())
def test_what_is_raised_is_documented(name: str, data: st.DataObject, folder: Path) -> None:
    function, arguments = CALLS[name]
    given = arguments(folder)
    for key in data.draw(st.lists(st.sampled_from(sorted(given)), min_size=1, max_size=3, unique=True)):
        given[key] = JUNK[data.draw(st.integers(0, len(JUNK) - 1))]()
    error = raised(lambda: function(**given))
    if error is None or isinstance(error, OF_THE_SYSTEM) or passes_through(error, given):
        return
    assert type(error) is ValueError, "".join(traceback.format_exception(error))[-2000:]
    assert len(str(error).splitlines()) == 1
    assert len(str(error)) < MOST
    assert re.match(r"[\w.,\[\]' ]+: ", str(error)), str(error)


def raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None


def passes_through(error: BaseException, given: dict[str, Any]) -> bool:
    """Whether it was raised in a network, or a function, of the caller's: a module's call without a frame of ours
    further in."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    called = max((i for i, frame in enumerate(frames) if frame.f_code.co_name in CALLERS), default=None)
    if called is not None:
        return not any(_ours(frame) for frame in frames[called:])
    return callable(given.get("forward", given.get("filter"))) and not _ours(frames[-1])


def _ours(frame: Any) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("lrw")


def test_a_fault_of_ours_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    ours: dict[str, Any] = {"__name__": "lrw.fault"}
    exec("def forward(self, x): raise IndexError('a fault of ours')", ours)
    net = nn.Sequential(winograd(), nn.Linear(3, 3))
    error = raised(lambda: lrw.check(net, X))
    assert error is not None
    assert passes_through(error, {})
    monkeypatch.setattr(lrw.WinogradConv3d, "forward", ours["forward"])
    error = raised(lambda: lrw.check(net, X))
    assert isinstance(error, IndexError)
    assert not passes_through(error, {})


def test_every_public_function_is_called() -> None:
    functions = {
        name for name in lrw.__all__ if callable(getattr(lrw, name)) and not isinstance(getattr(lrw, name), type)
    }
    assert functions - CALLS.keys() == ELSEWHERE.keys()
