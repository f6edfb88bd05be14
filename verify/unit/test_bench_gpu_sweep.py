"""The sweep over configurations of GPU kernels: candidates, judging, the table that comes of it."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton", reason="the GPU kernels need triton (pip install 'lrw[gpu]')")

from bench.on_gpu import sweep, table, tunings
from bench.on_gpu.rows import Row
from bench.on_gpu.sweep import Trial
from bench.on_gpu.tunings import Key
from lrw_kernels.triton import tuned
from lrw_kernels.triton.config import Products, Transform


def row(kernel: str, config: str, ms: float, layer: str = "c3d-3b", channels: tuple[int, int] = (256, 256)) -> Row:
    return Row("sweep", layer, "half", *channels, form=f"{kernel} {config}", columns=0.5, ms=ms)


def test_candidates_begin_with_the_one_in_use_and_come_once() -> None:
    used = Transform(16, 64, 4)
    found = sweep.blocks(used, 128)
    assert found[0] == used
    assert len(found) == len(set(found)) == 6
    assert Transform(8, 128, 4) in found
    assert Transform(8, 128, 4) not in sweep.blocks(used, 64)
    products = sweep.shapes(Products(64, 64, 32, 4, 3), 1000, 64)
    assert products[0] == Products(64, 64, 32, 4, 3)
    assert all(one.columns <= 64 and one.steps == 32 for one in products)
    assert len(products) == len(set(products)) == 3


def test_what_computes_something_else_has_no_time() -> None:
    right, expected = torch.arange(1.0, 7.0).view(2, 3), dict[str, torch.Tensor]()

    def trial(*values: torch.Tensor) -> Trial:
        results = iter(value.clone() for value in values for _ in range(2))
        return Trial("gather", "8x64 w4", [lambda: next(results)], 1)

    assert sweep._judged(trial(right), expected, "ieee") == (0.0, "")
    far, note = sweep._judged(trial(right + 1e-3), expected, "ieee")
    assert far is None
    assert "is off by" in note
    assert sweep._judged(trial(right * (1 + 2**-11)), expected, "tf32")[1] == ""
    unwritten = right.clone()
    unwritten[0, 0] = torch.nan
    assert "nobody wrote" in sweep._judged(trial(unwritten), expected, "ieee")[1]
    assert "nobody wrote" in sweep._judged(trial(torch.full((2, 3), torch.nan)), {}, "ieee")[1]


@pytest.mark.parametrize(("error", "is_of_the_configuration"), [
    (RuntimeError("PassManager::run failed"), True), (torch.OutOfMemoryError("no memory"), False),
    (torch.AcceleratorError("illegal access"), False),
])  # fmt: skip
def test_a_gpu_without_memory_is_no_refusal_of_a_configuration(error: Exception, is_of_the_configuration: bool) -> None:
    def fail() -> torch.Tensor:
        raise error

    dry = SimpleNamespace(clock=SimpleNamespace(dry=True))
    problem = SimpleNamespace(precision="half", row=lambda kind, **more: {"kind": kind, **more})
    with nullcontext() if is_of_the_configuration else pytest.raises(type(error)):
        found = sweep._row(dry, problem, Trial("gather", "8x64 w4", [fail], 1), {})
        assert (found.kind, found.note) == ("refused", "RuntimeError: PassManager::run failed")


def test_the_fastest_over_all_layers_is_taken_if_it_gains() -> None:
    small, large, other = "128x128x64 w8 s3", "128x256x64 w8 s3", "r3d18-layer3"
    rows = [
        row("products", small, 1.0), row("products", large, 0.8), row("products", "cublas", 0.9),
        row("products", small, 1.0, other), row("products", large, 1.0, other), row("products", "cublas", 0.7, other),
        row("gather", "16x64 w4", 1.0), row("gather", "8x64 w4", 0.99),
    ]  # fmt: skip
    assert tunings.fastest(rows) == {
        Key("products", "half", 256, 256): "cublas",
        Key("gather", "half", 256, 256): None,  # as good as what is in use
    }


@pytest.mark.parametrize(("fused", "expected"), [(1.5, "64x64x64 w8 s3"), (2.5, "separate")])
def test_one_kernel_or_two_is_measured(fused: float, expected: str) -> None:
    rows = [
        row(kernel, config, ms, "r3d18-layer1", (64, 64))
        for kernel, config, ms in (
            ("scatter", "16x64 w4", 1.2), ("scatter", "8x64 w4", 1.0), ("products", "cublas", 1.0),
            ("fused", "64x64x64 w8 s4", fused + 0.1), ("fused", "64x64x64 w8 s3", fused),
        )
    ]  # fmt: skip
    assert tunings.fastest(rows)[Key("fused", "half", 64, 64)] == expected


def test_the_file_keeps_what_was_not_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "tuned.csv"
    first = [row("gather", "16x64 w4", 1.0), row("gather", "8x64 w4", 0.5)]
    assert tunings.rewrite(path, first, 90, "NVIDIA H200", "2026-11-27") == 1
    assert tunings.rewrite(path, first, 80, "NVIDIA A100", "2026-11-28") == 2
    again = [row("gather", "8x64 w4", 1.0), row("gather", "4x64 w4", 1.2)]  # in use by now, and still the fastest
    again += [row("weight_sums", "128x128x64 w8 s3", 1.0), row("weight_sums", "64x64x64 w4 s4", 0.5)]
    assert tunings.rewrite(path, again, 90, "NVIDIA H200", "2026-11-29") == 3
    assert path.read_text().splitlines() == [
        ",".join(tuned.Tuned._fields),
        "gather,half,256,256,8x64 w4,80,A100,2026-11-28",
        "gather,half,256,256,8x64 w4,90,H200,2026-11-27",
        "weight_sums,half,256,256,64x64x64 w4 s4,90,H200,2026-11-29",
    ]
    assert [one.name for one in tmp_path.iterdir()] == ["tuned.csv"]


def test_what_the_device_refuses_is_told_and_is_no_failure() -> None:
    refused = Row("refused", "c3d-3b", "half", form="products 256x256x64 w8 s4", note="OutOfResources: shared memory")
    wrong = Row(
        "sweep", "c3d-3b", "half", form="gather 8x64 w4", note="sweep: gather 8x64 w4 is off by 0.1 of its norm"
    )
    assert not refused.failed
    assert wrong.failed
    assert len(table.notes([refused, wrong])) == 1
    titles = [one.title for one in table.tables([row("gather", "8x64 w4", 1.0), refused])]
    assert titles == ["configurations of kernels: ms"]
