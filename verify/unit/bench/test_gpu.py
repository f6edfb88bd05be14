"""The GPU bench's figures: quantiles, bars, tables and the table that dispatch reads."""

import csv
import io
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

pytest.importorskip("triton", reason="the bench measures Triton kernels")

from bench.gpu import bars, clock, compiled, page, speedups
from bench.gpu.plan import Job
from bench.gpu.rows import PRECISIONS, Row
from bench.layers import GPU, Layer
from lrw import ops
from lrw_kernels.triton.precision import Precision
from lrw_kernels.triton.speedups import Speedup, parse
from lrw_kernels.winograd import Tile

TILE = Tile.of(2).name
STAMP = {"commit": "abc", "machine": "NVIDIA H200", "versions": "torch 2", "date": "2026-01-01"}
PASS = Row("forward", "c3d-3b", "half", 256, 256, "8x28x28", 16, TILE, 1.0, ms=0.5, low=0.4, high=0.6, cudnn_ms=1.0,
           cudnn_form="NDHWC", speedup=2.0, floor_ms=0.4, error=1e-3, **STAMP)  # fmt: skip
FAILED = replace(PASS, columns=0.5, ms=None, low=None, high=None, speedup=None, error=None, note="gate: Y is off")
MEMORY = Row("memory", "c3d-3b", "half", 256, 256, tile=TILE, columns=1.0, mib=130.0, cudnn_mib=104.0, **STAMP)
STEP = Row("step", "r3d18", "half", columns=0.5, form="masked", ms=50.0, cudnn_ms=45.0, speedup=0.9, mib=150.0,
           cudnn_mib=100.0, **STAMP)  # fmt: skip
ALL = [PASS, FAILED, MEMORY, STEP, replace(STEP, form="compressed", speedup=1.2, mib=120.0)]


def test_quantiles_are_those_of_the_values() -> None:
    assert clock.of([5, 1, 4, 2, 3, 6]) == clock.Times(3.5, 2.0, 5.0)
    assert clock.of([1.0, 1.0]).scaled(0.5) == clock.Times(0.5, 0.5, 0.5)


class Event:
    """A CUDA event by the processor's clock."""

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: "Event") -> float:
        return 1e3 * (other.at - self.at)


class Graph:
    """A CUDA graph of calls that take ten milliseconds."""

    def replay(self) -> None:
        time.sleep(0.01)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> clock.Clock:
    """A clock where torch pretends that there is a GPU."""
    stand_ins = {"Event": Event, "CUDAGraph": Graph, "synchronize": lambda _: None, "Stream": MagicMock(),
                 "current_stream": MagicMock(), "stream": MagicMock(), "graph": MagicMock(),
                 "graph_pool_handle": MagicMock(), "set_stream": MagicMock(),
                 "get_device_properties": lambda _: SimpleNamespace(L2_cache_size=50),
                 "memory_allocated": lambda _: 1 << 20, "max_memory_allocated": lambda _: 4 << 20,
                 "reset_peak_memory_stats": lambda _: None}  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return clock.Clock(torch.device("cuda:0"), 0.02)


def test_calls_take_turns_and_are_timed_one_by_one(pretended: clock.Clock) -> None:
    taken: list[int] = []

    def call(number: int) -> None:
        taken.append(number)
        time.sleep(0.002)

    times = pretended.eager([partial(call, 0), partial(call, 1)])
    assert times is not None
    assert times.low <= times.median <= times.high
    assert times.median >= 2
    assert taken[-4:] in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_a_graph_s_time_is_that_of_one_of_its_calls(pretended: clock.Clock) -> None:
    times = pretended.graph([list, list, list, list, list])
    assert times is not None
    assert times.median >= 2


def test_after_a_capture_that_failed_calls_are_made_where_they_were_before(
    pretended: clock.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "graph", MagicMock(side_effect=RuntimeError("operation not permitted")))
    with pytest.raises(RuntimeError, match="not permitted"):
        pretended.graph([list])
    torch.cuda.set_stream.assert_called_once_with(torch.cuda.current_stream())


def test_kernels_are_told_apart_by_the_profiler(pretended: clock.Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    events = [SimpleNamespace(key=key, self_device_time_total=spent) for key, spent in (("gather", 3000.0), ("x", 0.0))]
    profile = MagicMock()
    profile.return_value.__enter__.return_value.key_averages.return_value = events
    monkeypatch.setattr(torch.profiler, "profile", profile)
    assert pretended.kernels([list, list]) == {"gather": 1.5}


def test_a_peak_is_told_without_what_was_there_before(pretended: clock.Clock) -> None:
    assert pretended.peak(lambda: list) == 3.0


def test_buffers_in_turn_are_larger_than_the_cache() -> None:
    assert [clock.rotations(size, 60) for size in (1, 30, 100, 1000)] == [8, 6, 2, 2]


def test_bars_that_nobody_measured_say_so() -> None:
    assert {bar.answer for bar in bars.bars([])} == {"unmeasured"}
    assert len(bars.bars([])) == 15


def test_bars_are_held_against_what_was_measured() -> None:
    found = {bar.text: bar for bar in bars.bars(ALL)}
    dense = found["bfloat16, Cin from 256, 100% of columns, times as fast"]
    assert (dense.answer, dense.details) == ("2.00, reached", "1 layers, at the floor 2.50")
    assert found["bfloat16, Cin from 256, 50% of columns, times as fast"].answer == "unmeasured"  # its gate is red
    step = found["training step of R3D-18, bfloat16, 50% of columns, times as fast"]
    assert (step.answer, step.details) == ("1.20, reached", "masked 0.90, compressed 1.20")
    memory = found["peak memory of R3D-18's training step, of cuDNN's"]
    assert (memory.answer, memory.details) == ("1.50, missed", "most of 2: r3d18 masked 50%")
    assert found["peak memory of a layer's training step, of cuDNN's"].answer == "1.25, reached"


def test_a_layer_counts_with_its_faster_tile() -> None:
    slow = replace(PASS, precision="ieee", speedup=2.0)
    fast = replace(slow, tile="F(4x4x4, 3x3x3)", speedup=4.0)
    other = replace(slow, layer="c3d-2a", speedup=1.0)
    assert bars.bars([slow, fast, other])[0].value == pytest.approx(2.0)


def test_the_page_says_what_was_measured_or_that_nothing_was() -> None:
    assert page.table([]) == page.table([replace(PASS, ms=None)]) == [page.NOTHING]
    text = page.table(ALL)
    title = "| c3d-3b 256->256 at 8x28x28 | half | F(2x2x2, 3x3x3) | 1.000 NDHWC | 2.00x (80%) |  |  | 1.0e-03 |"
    assert title in text
    assert text[-2:] == ["forward c3d-3b half 50%: gate: Y is off.", "abc | NVIDIA H200 | torch 2 | 2026-01-01."]


def test_measured_speed_ups_take_the_place_of_predicted_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "speedups.csv"
    monkeypatch.setattr(speedups, "table", lambda: ())
    predicted = [Speedup("forward", "half", channels, 1.0, 1.45, "H200", "") for channels in (256.0, 512.0)]
    path.write_text(speedups.text(predicted))
    slower = replace(PASS, tile="F(4x4x4, 3x3x3)", speedup=1.5)
    measured = [PASS, replace(PASS, layer="r3d18-layer3", speedup=8.0), slower, FAILED,
                replace(PASS, cin=64, cout=128, columns=0.25), MEMORY, replace(PASS, kind="training", speedup=1.25),
                replace(PASS, kind="input_grad")]  # fmt: skip
    assert speedups.rewrite(path, measured, STAMP["machine"], STAMP["date"]) == 3
    assert parse(csv.DictReader(io.StringIO(path.read_text()))) == [
        Speedup("forward", "half", 90.0, 0.25, 2.0, "H200", "2026-01-01"),
        Speedup("forward", "half", 256.0, 1.0, 4.0, "H200", "2026-01-01"),
        predicted[1],
        Speedup("training", "half", 256.0, 1.0, 1.25, "H200", "2026-01-01"),
    ]


def test_only_the_tile_that_auto_takes_counts() -> None:
    small, large = (replace(PASS, precision="ieee", tile=Tile.of(m).name, speedup=float(m)) for m in (2, 4))
    assert [row.speedup for row in speedups.measured([small, large], "H200", "")] == [4.0]
    flat = [replace(row, size="2x7x7", cin=512, cout=512) for row in (small, large)]
    assert [row.speedup for row in speedups.measured(flat, "H200", "")] == [2.0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layer", GPU, ids=lambda layer: layer.name)
def test_it_is_the_tile_that_the_function_takes(layer: Layer, precision: Precision) -> None:
    dtype = torch.bfloat16 if precision == "half" else torch.float32
    x: Any = SimpleNamespace(is_cuda=True, shape=(1, layer.cin, *layer.size), dtype=dtype, device=torch.device("cuda"))
    weight: Any = SimpleNamespace(shape=(layer.cout, layer.cin, 3, 3, 3))
    row = replace(PASS, precision=precision, cin=layer.cin, cout=layer.cout, size=layer.extent)
    with torch.backends.cudnn.flags(allow_tf32=precision == "tf32"):
        taken = ops._spatial_tile("auto", (3, 3, 3), x, weight, (1, 1, 1), 1e-4)
    assert speedups._automatic(row) == Tile.of(taken).name


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("half,64,1.00,0.55,H200,", "is not kind, precision"),
        ("forward,half,64,1.00,0.55,H200,,more", "is not kind, precision"),
        ("pass,half,64,1.00,0.55,H200,", "no such row: pass, half"),
        ("forward,half,64,1.00,nan,H200,", "no such row"),
        ("forward,half,0,1.00,0.55,H200,", "no such row"),
    ],
)
def test_a_table_with_other_lines_is_refused(line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "speedups.csv"
    path.write_text(f"{','.join(Speedup._fields)}\n{line}\n")
    with pytest.raises(ValueError, match=said):
        speedups.known(path)


def test_a_table_with_too_few_rows_gets_those_in_use(tmp_path: Path) -> None:
    path = tmp_path / "speedups.csv"
    path.write_text(",".join(Speedup._fields) + "\n")
    speedups.rewrite(path, [PASS], STAMP["machine"], STAMP["date"])
    assert len(speedups.known(path)) == len(speedups.table())


def test_the_committed_table_is_as_it_would_be_written() -> None:
    path = Path(__file__).parents[3] / "kernels" / "lrw_kernels" / "triton" / "speedups.csv"
    known = parse(csv.DictReader(io.StringIO(path.read_text())))
    assert speedups.text(speedups.merged(known, [])) == path.read_text()


def work(job: Job) -> None:
    if job.outputs > 2:
        time.sleep(60)
    if job.outputs > 1:
        raise RuntimeError("no room")


@pytest.mark.slow
def test_jobs_that_take_too_long_are_late_and_those_that_fail_are_not() -> None:
    jobs = [Job(GPU[0], "half", outputs) for outputs in (1, 2, 3, 4)]
    assert compiled.late(jobs, 1, 20.0, work) == {*jobs[2:]}
