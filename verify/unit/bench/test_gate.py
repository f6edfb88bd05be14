"""The gate before every number: red for what is wrong in any way; and what each bench asks of it."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bench import gate, networks
from bench.cpu import inference, training
from bench.gate import Red
from bench.layers import NETWORKS, Layer, Network
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

Y = torch.linspace(-1, 1, 1000, dtype=torch.float64)
SMALL = Layer("small", 4, 4, (6, 6, 6))


@pytest.mark.parametrize(
    ("y", "said"),
    [
        (Y.masked_fill(Y > 0.99, float("nan")), "Y holds values nobody wrote"),
        (Y.masked_fill(Y > 0.99, float("inf")), "Y holds values nobody wrote"),
        (Y + 0.2 * (Y > 0.998), "an element of Y is off by 2 times its bound"),
        (1.05 * Y, "Y is off by 0.05 of its norm; the limit is 0.02"),
        (Y[1:], r"Y is \[999\], expected \[1000\]"),
    ],
)
def test_the_gate_is_red_for_what_is_wrong(y: torch.Tensor, said: str) -> None:
    with pytest.raises(Red, match=said):
        gate.judged("Y", y, Y, 0.1, 0.02)


def test_the_gate_gives_the_error_of_what_is_right() -> None:
    assert gate.judged("Y", 1.01 * Y, Y, 0.1, 0.02) == pytest.approx((0.01, 0.01))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("bench", "kept"), [(inference, [64, 32, 16]), (training, [64])])
def test_a_layer_is_measured_behind_its_gate(bench: object, kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.measure(SMALL, Tile.of(2), "auto", 0.05)
    assert [getattr(row, "kept", 64) for row in found] == kept
    assert all(row.torch_ms > 0 and row.lrw_ms > 0 and row.error < 1e-5 and "small" in row.line for row in found)
    monkeypatch.setattr(bench, "interleaved", lambda *_, **__: pytest.fail("timed behind a red gate"))
    for bound in ("output_bound", "input_bound"):
        monkeypatch.setattr(bench, bound, lambda *_: 0.0, raising=False)
    with pytest.raises(Red, match=r"small is off by inf times its bound; nothing was measured"):
        bench.measure(SMALL, Tile.of(2), "auto", 0.05)


@pytest.mark.filterwarnings("ignore")
def test_a_network_is_measured_behind_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU())
    small = Network("small", "torch", lambda: net, (1, 2, 6, 6, 6))
    row = networks.measure(small, 0.05, ())
    assert (row.openvino_ms, row.input) == (None, "1x2x6x6x6")
    assert row.error < 1e-5
    assert networks.table([row])[-1].startswith("| geometric mean | | | | |")
    assert networks.table([]) == [networks.NOTHING]
    monkeypatch.setattr(networks, "RTOL", 1e-12)
    monkeypatch.setattr(networks, "interleaved", lambda *_, **__: pytest.fail("timed behind a red gate"))
    with pytest.raises(Red, match=r"small is off by [\d.e+]+ times"):
        networks.measure(small, 0.05, ())


def test_networks_of_packages_that_are_missing_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(networks, "find_spec", lambda _: None)
    assert networks.main([]) == 0
    left_out = [f"{network.name}: left out, {network.package} is not installed" for network in NETWORKS]
    assert capsys.readouterr().err.splitlines() == left_out


@pytest.mark.parametrize(("outputs", "precision"), [(2, "half"), (2, "tf32"), (4, "ieee")])
def test_a_training_step_on_a_gpu_is_judged_by_all_that_it_gives(outputs: int, precision: Precision) -> None:
    on_gpu = pytest.importorskip("bench.gpu.gate", reason="it computes by Triton kernels")
    direct, problems = (pytest.importorskip(f"bench.gpu.{name}", reason="likewise") for name in ("direct", "problem"))
    layer = Layer("small", 16, 32, (4, 6, 6), batch=2)
    problem = problems.Problem(layer, precision, outputs, torch.device("cpu"), 1)
    inner = problem.inputs[0], problem.gradients[0]
    x, dy = (t.permute(0, 4, 1, 2, 3).double() for t in inner)
    w = problem.weight.to(problem.dtype).double()
    exact = direct.trained(partial(F.conv3d, padding=1), x, w, dy)()
    assert on_gpu.training(problem, lambda: exact) < 1e-12
    for wrong, name in enumerate(("Y", "dX", "dW")):
        given = tuple(1.2 * t if i == wrong else t for i, t in enumerate(exact))
        with pytest.raises(Red, match=f"{name} is off by"):
            on_gpu.training(problem, lambda given=given: given)
