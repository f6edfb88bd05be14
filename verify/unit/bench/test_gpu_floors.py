"""The GPU bench's floors: against numbers worked out by hand, and what must hold of any."""

import pytest

from bench.gpu import floors, page
from bench.gpu.floors import ASSUMED, Kernel, Pass
from bench.gpu.rows import PRECISIONS, Row
from bench.layers import GPU, SHARES, Layer
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

LAYER = {layer.name: layer for layer in GPU}
SMALL = Layer("small", 16, 32, (2, 4, 4), batch=3)  # 12 tiles of F(2,3), 96 numbers a channel
F2, F4 = Tile.of(2), Tile.of(4)


@pytest.mark.parametrize(
    ("name", "precision", "share", "expected"),
    [("c3d-3b", "half", 1.0, 0.408), ("r3d18-layer1", "half", 0.5, 0.430), ("c3d-4b", "ieee", 0.25, 0.232)],
)
def test_three_kernels_take_what_was_worked_out_by_hand(
    name: str, precision: Precision, share: float, expected: float
) -> None:
    kernels = Pass("forward", LAYER[name], F2, share, precision).ways()["apart"]
    assert floors.milliseconds(kernels, precision, ASSUMED) == pytest.approx(expected, abs=5e-4)


def test_a_kernel_takes_as_long_as_its_bytes_or_its_operations() -> None:
    ceilings = {"copy": 10.0, "half": 100.0}
    assert floors.milliseconds([Kernel(20), Kernel(20, 100), Kernel(10, 200)], "half", ceilings) == 6000


def test_bytes_and_operations_of_each_pass() -> None:
    x, y, v, m, u = 3072, 6144, 24576 // 2, 49152 // 2, 32 * 16 * 32 * 2  # half of the columns, two bytes a number
    operations = 2 * 32 * 12 * 16 * 32
    assert Pass("forward", SMALL, F2, 0.5, "half").ways() == {
        "apart": [Kernel(x + v), Kernel(v + u + m, operations), Kernel(m + y)],
        "fused": [Kernel(x + v), Kernel(v + u + y, operations)],
    }
    assert Pass("input_grad", SMALL, F2, 0.5, "half").ways() == {
        "apart": [Kernel(y + m), Kernel(m + u + v, operations), Kernel(v + x)],
        "fused": [Kernel(y + m), Kernel(m + u + x, operations)],
    }
    assert Pass("weight_grad", SMALL, F2, 0.5, "half").ways() == {
        "apart": [Kernel(x + v), Kernel(y + m), Kernel(v + m + 2 * u, operations)]
    }


@pytest.mark.parametrize("kind", floors.PASSES)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", LAYER)
def test_fewer_columns_take_less_but_not_less_in_proportion(name: str, precision: Precision, kind: str) -> None:
    ms = [floors.least(Pass(kind, LAYER[name], F2, share, precision), ASSUMED) for share in SHARES]
    whole, half, quarter = (value or 0.0 for value in ms)
    assert whole > half > quarter > whole / 4


def test_the_faster_way_is_taken_where_there_are_two() -> None:
    one = Pass("forward", LAYER["r3d18-layer1"], F2, 1.0, "half")
    assert floors.least(one, ASSUMED) == floors.milliseconds(one.ways()["fused"], "half", ASSUMED)
    for apart in (Pass("forward", LAYER["c3d-3b"], F2, 1.0, "half"), Pass("forward", SMALL, F4, 1.0, "half")):
        assert list(apart.ways()) == ["apart"]


def test_training_is_three_passes_and_two_ways_of_the_weights() -> None:
    passes = [floors.least(Pass(kind, SMALL, F2, 1.0, "half"), ASSUMED) or 0.0 for kind in floors.PASSES]
    weights = 16 * 32 * ((27 * 2 + 64 * 2) + (27 * 2 + 64 * 4)) / ASSUMED["copy"]
    assert floors.training(SMALL, F2, "half", ASSUMED) == pytest.approx(sum(passes) + 1e3 * weights)


def test_without_ceilings_there_is_no_floor() -> None:
    one = Pass("forward", SMALL, F2, 1.0, "half")
    assert floors.least(one, {"copy": 1.0, "tf32": 1.0}) is None
    assert floors.least(one, {"half": 1.0}) is None
    assert floors.training(SMALL, F2, "half", {"half": 1.0}) is None


def test_direct_convolution_is_bound_by_its_products_here() -> None:
    assert floors.direct(LAYER["c3d-3b"], "half", ASSUMED) == pytest.approx(0.450, abs=5e-4)
    assert floors.direct(LAYER["c3d-3b"], "half", {**ASSUMED, "half": 1e18}) == pytest.approx(0.0247, abs=5e-5)


def test_the_page_says_what_its_floors_are_made_of() -> None:
    text = "\n".join(page.floors([]))
    assert "| c3d-3b: 256->256 at 8x28x28 | half | F(2x2x2, 3x3x3) | 0.450 | 0.408 (1.10x) | 0.216 (2.08x) |" in text
    assert text.endswith(
        "\nAssumed, not measured: 4.3 TB/s copied, 790 TFLOP/s (half), 395 TFLOP/s (tf32), 67 TFLOP/s (ieee)."
    )


def test_floors_are_those_of_the_gpu_that_was_measured() -> None:
    stamp = {"machine": "NVIDIA H100", "commit": "abc", "versions": "torch 2", "date": "2026-01-01"}
    copy, matmul = Row("ceiling", "copy", rate=2.15e12, **stamp), Row("ceiling", "matmul", "half", rate=700e12, **stamp)
    text = "\n".join(page.floors([copy, matmul, Row("forward", **stamp)]))
    assert "| c3d-3b: 256->256 at 8x28x28 | half | F(2x2x2, 3x3x3) | 0.507 | 0.816 (0.62x) |" in text
    assert text.endswith(
        "\nAssumed, not measured: 395 TFLOP/s (tf32), 67 TFLOP/s (ieee).\n"
        "Measured: 2.15 TB/s copied, 700 TFLOP/s (half).\nabc | NVIDIA H100 | torch 2 | 2026-01-01."
    )
