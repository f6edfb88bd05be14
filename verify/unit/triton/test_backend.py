"""The GPU backend without a GPU: who may ask for it, what "auto" takes, and what tables say."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lrw import backends, ops
from lrw.backends import triton as backend
from lrw.ops import winograd_conv3d
from lrw_kernels.triton import precision, speedups
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.mirror import mirrored_positions

CPU, GPU = torch.device("cpu"), torch.device("cuda")
X, W = torch.randn(1, 3, 5, 5, 5), torch.randn(2, 3, 3, 3, 3)
plain = pytest.mark.skipif(backend.refusal(CPU, torch.float32) is None, reason="TRITON_INTERPRET=1: a CPU will do")


def run_python(code: str, **variables: str) -> str:
    """What `code` prints in a process of its own."""
    command, environment = [sys.executable, "-c", code], os.environ | variables
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout


@pytest.fixture
def hopper() -> Iterator[None]:
    """As if there were one."""
    with patch.multiple(torch.cuda, is_available=lambda: True, get_device_capability=lambda _: (9, 0)):
        yield


@plain
def test_asked_for_by_name_it_never_falls_back() -> None:
    with pytest.raises(ValueError, match="backend: 'triton' computes on NVIDIA GPUs only; the tensors are on cpu"):
        winograd_conv3d(X, W, backend="triton")


@plain
def test_a_machine_without_a_gpu_and_without_triton_is_told_so() -> None:
    assert backend.refusal(GPU, torch.float32) == "finds no NVIDIA GPU"
    with patch.object(backend, "_missing_triton", lambda: "needs the package triton (pip install 'lrw[gpu]')"):
        assert backends.choose(GPU).reason == "'triton' needs the package triton (pip install 'lrw[gpu]')"
        assert backends.choose(GPU).name == "torch"


def installed(**distributions: str) -> Callable[[str], str]:
    """`importlib.metadata.version` where these distributions, by name with underscores, are all there are."""

    def version(name: str) -> str:
        try:
            return distributions[name.replace("-", "_")]
        except KeyError:
            raise PackageNotFoundError(name) from None

    return version


@pytest.mark.parametrize("distribution", ["triton", "pytorch_triton"])
@pytest.mark.parametrize(
    ("found", "accepted"), [("3.5.1", False), ("3.6.0", True), ("3.9.0+git1", True), ("4.0", True)]
)
def test_triton_may_be_too_old(distribution: str, found: str, accepted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "version", installed(**{distribution: found}))
    reason = backend._missing_triton.__wrapped__()
    assert reason == (None if accepted else f"needs triton 3.6 or later; installed is {found}")


def test_triton_may_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "version", installed(pytorch_triton_rocm="3.6.0"))
    assert backend._missing_triton.__wrapped__() == "needs the package triton (pip install 'lrw[gpu]')"


@pytest.mark.parametrize(("of_triton", "of_numpy", "works"), [
    ("3.6.0", "2.3.5", True), ("3.6.0", "2.4.0", False), ("3.9.0", "2.5.1", True),
])  # fmt: skip
def test_an_interpreter_that_does_not_know_this_numpy_is_refused(
    of_triton: str, of_numpy: str, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "_missing_triton", lambda: None)
    monkeypatch.setattr(backend, "_interpreting", lambda: True)
    monkeypatch.setattr(backend, "version", installed(triton=of_triton))
    monkeypatch.setattr("numpy.__version__", of_numpy)
    reason = backend.refusal(CPU, torch.float32)
    assert (reason is None) == works
    assert works or "wants numpy before 2.4" in str(reason)


def test_kernels_without_triton_say_what_to_install() -> None:
    code = """
import sys
sys.modules["triton"] = None
try:
    import lrw_kernels.triton.conv
except ModuleNotFoundError as error:
    print(error)
"""
    assert run_python(code) == "the GPU kernels need the package triton (pip install 'lrw[gpu]')\n"


@pytest.mark.usefixtures("hopper")
def test_dtypes_and_older_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert backend.refusal(GPU, torch.float16) is None
    assert backend.refusal(GPU, torch.float64) == "computes float32, bfloat16 and float16; the tensors are float64"
    assert backends.choose(GPU, torch.float64).name == "torch"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    assert backend.refusal(GPU, torch.float32) == "needs compute capability 8.0 or later, this GPU has 7.5"
    monkeypatch.setattr(torch.version, "hip", "6.3")
    assert backend.refusal(GPU, torch.float32) == "computes on NVIDIA GPUs only; the tensors are on an AMD GPU"


def test_importing_lrw_imports_no_triton_kernels_and_no_triton() -> None:
    code = "import sys, lrw, lrw.ops, lrw_kernels.triton; print('triton' in sys.modules, 'numba' in sys.modules)"
    assert run_python(code).split() == ["False", "False"]


@pytest.mark.usefixtures("hopper")
def test_auto_goes_to_cudnn_where_direct_convolution_is_faster_and_says_why() -> None:
    small = backends.choose(GPU, torch.bfloat16, (64, 64))
    assert small.name == "cudnn"
    assert "64 to 64 channels" in small.reason
    assert "measured" in small.reason
    assert backends.choose(GPU, torch.bfloat16, (512, 512)).name == "triton"
    assert backends.choose(GPU, torch.bfloat16).name == "triton"  # in the Winograd domain there is no direct way
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert backends.choose(GPU, torch.float32, (64, 64)).name == "triton"


@pytest.mark.usefixtures("hopper")
def test_training_has_rows_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (speedups.Speedup("forward", "half", 256, 1.0, 1.5, "H200", "2026-11-22"),
            speedups.Speedup("training", "half", 256, 1.0, 0.9, "H200", "2026-11-22"))  # fmt: skip
    monkeypatch.setattr(speedups, "table", lambda: rows)
    assert backends.choose(GPU, torch.bfloat16, (256, 256)).name == "triton"
    choice = backends.choose(GPU, torch.bfloat16, (256, 256), training=True)
    assert choice.name == "cudnn"
    assert "0.90 times as fast for a training step of 256 to 256 channels in half" in choice.reason


@pytest.mark.parametrize("of", ["input", "weight"])
def test_a_call_that_has_gradients_is_training(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    def choose(*_: object, training: bool) -> backends.Choice:
        asked.append(training)
        return backends.Choice("cudnn", "direct convolution")

    monkeypatch.setattr(backends, "choose", choose)
    x, w = torch.zeros(1, 16, 4, 4, 4), torch.zeros(16, 16, 3, 3, 3)
    assert ops._is_direct(x, w, None, None)
    (x if of == "input" else w).requires_grad_()
    assert ops._is_direct(x, w, None, None)
    with torch.no_grad():
        assert ops._is_direct(x, w, None, None)
    assert asked == [False, True, False]


@pytest.mark.usefixtures("hopper")
@pytest.mark.parametrize(
    ("channels", "kernel_size"), [((512, 512), (5, 5, 5)), ((512, 512), (1, 1, 1)), ((3, 512), (3, 3, 3))]
)
def test_layers_that_the_table_does_not_know_go_to_cudnn(
    channels: tuple[int, int], kernel_size: tuple[int, int, int]
) -> None:
    choice = backends.choose(GPU, torch.bfloat16, channels, kernel_size)
    assert choice.name == "cudnn"
    assert "3x3x3 and 16 channels" in choice.reason


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_tile_is_small_and_is_none_on_many_taps(dtype: torch.dtype) -> None:
    x: Any = SimpleNamespace(is_cuda=True, shape=(1, 16, 9, 9, 9), dtype=dtype, device=GPU)
    assert ops._spatial_tile("auto", (3, 1, 7), x, W, (0, 0, 0), 1e-4) == (2, 1, 1)


def test_in_float32_throughout_the_tile_on_a_gpu_is_that_of_a_cpu() -> None:
    x: Any = SimpleNamespace(is_cuda=True, shape=(1, 64, 16, 58, 58), dtype=torch.float32, device=GPU)
    weight: Any = SimpleNamespace(shape=(64, 64, 3, 3, 3))
    with torch.backends.cudnn.flags(allow_tf32=False):
        assert ops._spatial_tile("auto", (3, 3, 3), x, weight, (1, 1, 1), 1e-4) == (4, 4, 4)
        with patch.object(ops, "_autocast_dtype", lambda _: torch.bfloat16):
            assert ops._spatial_tile("auto", (3, 3, 3), x, weight, (1, 1, 1), 1e-4) == (2, 2, 2)


def test_a_workspace_is_no_more_than_the_activations_within_bounds() -> None:
    from lrw_kernels.triton import parts
    from lrw_kernels.triton.layer import Layer

    def of(mib: int, most: int = 512) -> int:
        x = torch.empty(mib << 20, dtype=torch.uint8, device="meta")
        return parts.workspace(Layer("", (0, 0, 0), (), "half", most << 20), x, x) >> 20

    assert [of(mib) for mib in (1, 64, 100, 4000)] == [128, 128, 200, 512]
    assert of(4000, 16) == 16
    assert parts.of_tiles(1000, 1 << 20, 256 << 20) == [(0, 256), (256, 256), (512, 256), (768, 232)]
    assert parts.of_tiles(0, 1, 1) == []
    assert [(list(n), planes) for n, planes in parts.of_slabs(3, 4, 1, 8)] == [([0, 1], (0, 4)), ([2], (0, 4))]
    assert [(list(n), planes) for n, planes in parts.of_slabs(1, 4, 1, 3)] == [([0], (0, 3)), ([0], (3, 4))]


def test_the_row_next_to_a_layer_is_taken() -> None:
    row = speedups.expected("forward", "half", 64, 128, 0.3)
    assert (row.channels, row.columns) == (90, 0.25)
    assert speedups.expected("training", "ieee", 3, 64)[:3] == ("training", "ieee", 64)
    asked = {(kind, precision) for kind in ("forward", "training") for precision in ("half", "tf32", "ieee")}
    assert {row[:2] for row in speedups.table()} == asked
    assert "not measured" in speedups.Speedup("forward", "half", 64, 1, 2, "H200", "").source
    assert "measured on H200, 2026-11-22" in speedups.Speedup("training", "half", 64, 1, 2, "H200", "2026-11-22").source


@pytest.mark.parametrize(
    ("newer", "above", "older", "expected"),
    [
        ("tf32", "none", None, "tf32"),
        ("ieee", "tf32", None, "ieee"),
        ("none", "tf32", None, "tf32"),
        ("none", "none", None, "ieee"),
        (None, None, True, "tf32"),
        (None, None, False, "ieee"),
    ],
)
def test_float32_is_as_precise_as_torchs_convolutions(
    newer: str | None, above: str | None, older: bool | None, expected: str
) -> None:
    conv = SimpleNamespace() if newer is None else SimpleNamespace(fp32_precision=newer)
    cudnn = SimpleNamespace(conv=conv, allow_tf32=older)
    with patch.object(torch, "backends", SimpleNamespace(cudnn=cudnn, fp32_precision=above)):
        assert precision.of_convolutions(torch.float32) == expected
        assert precision.of_convolutions(torch.float16) == "half"


def test_under_autocast_weights_of_another_dtype_may_go_to_cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_goes_to_cudnn", lambda *_: True)
    x, w = torch.empty(1, 64, 4, 4, 4, dtype=torch.bfloat16), torch.empty(64, 64, 3, 3, 3)
    assert ops._is_direct(x, w.bfloat16(), None, None)
    assert not ops._is_direct(x, w, None, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert ops._is_direct(x, w, None, None)
        assert not ops._is_direct(x.double(), w, None, None)
        assert not ops._is_direct(x, w.double(), None, None)


# The adjoint as a layer


@pytest.mark.parametrize(
    ("tile", "padding", "first"),
    [
        ("F(2x2x2,3x3x3)", (1, 1, 1), (63, 61, 62, 60)),
        ("F(2x2x2,3x3x3)@1,0,1", (1, 1, 1), (63, 61, 62, 60)),
        ("F(1x2x2,1x3x3)", (0, 1, 1), (15, 13, 14, 12)),
        ("F(1x1x1,3x3x3)", (1, 1, 1), (26, 25, 24)),
        ("F(2x2x2,3x3x3)", (0, 1, 1), None),
        ("F(4x4x4,3x3x3)", (1, 1, 1), None),
        ("F(2x2x2,5x5x5)", (2, 2, 2), None),
    ],
)
def test_mirrored_positions_are_found_where_there_are_some(
    tile: str, padding: tuple[int, int, int], first: tuple[int, ...] | None
) -> None:
    found = mirrored_positions(Tile.parse(tile), padding)
    if first is None:
        assert found is None
        return
    assert found is not None
    assert found[: len(first)] == first
    assert [found[p] for p in found] == list(range(len(found)))  # partners of each other


def test_the_interpreter_is_known_by_its_variable() -> None:
    code = "from lrw.backends import available; print('triton' in available())"
    assert run_python(code, TRITON_INTERPRET="1").strip() == "True"
    assert run_python(code, TRITON_INTERPRET="0").strip() == "False"
