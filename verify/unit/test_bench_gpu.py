"""The GPU bench's figures: quantiles, bars, tables, the CSV and the table that dispatch reads."""

import csv
import io
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from rich.console import Console

from bench.layers import kept
from bench.on_gpu import bars, clock, compiled, page, rows, speedups, table
from bench.on_gpu.layers import LAYERS, PRECISIONS, Layer
from bench.on_gpu.rows import Row
from lrw import ops
from lrw_kernels.triton import tuned
from lrw_kernels.triton.precision import Precision
from lrw_kernels.triton.speedups import Speedup, parse
from lrw_kernels.winograd import Tile

STAMP = ("NVIDIA H200", "abc", "torch 2", "2026-01-01")
PASS = Row("forward", "c3d-3b", "half", 256, 256, "8x28x28", 16, tuned.TILE, 1.0, ms=0.5, low=0.4, high=0.6,
           cudnn_ms=1.0, cudnn_form="NDHWC", speedup=2.0, floor_ms=0.4, error=1e-3)  # fmt: skip
FAILED = replace(PASS, columns=0.5, ms=None, low=None, high=None, speedup=None, error=None, note="gate: Y is off")
STAGE = Row("gather", "c3d-3b", "half", 256, 256, tile=tuned.TILE, columns=1.0, ms=0.1, rate=3e12, of_ceiling=0.75)
MEMORY = Row("memory", "c3d-3b", "half", 256, 256, tile=tuned.TILE, columns=1.0, mib=130.0, cudnn_mib=104.0)
STEP = Row("step", "r3d18", "half", columns=0.5, form="masked", ms=50.0, cudnn_ms=45.0, speedup=0.9, mib=150.0,
           cudnn_mib=100.0)  # fmt: skip
GRAPH = replace(STEP, form="masked graph", ms=30.0, cudnn_ms=42.0, speedup=1.4, mib=None, cudnn_mib=None)
ALL = [Row("ceiling", "copy", rate=4e12), PASS, FAILED, replace(STAGE, kind="products"), STAGE, MEMORY, STEP,
       replace(STEP, form="compressed", speedup=1.2, mib=120.0), GRAPH]  # fmt: skip


def written(path: Path) -> list[dict[str, str]]:
    with rows.Writer(path, STAMP) as writer:
        for row in ALL:
            writer.write(row)
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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


def test_a_peak_is_told_without_what_was_there_before(pretended: clock.Clock) -> None:
    assert pretended.peak(lambda: list) == 3.0


def test_buffers_in_turn_are_larger_than_the_cache() -> None:
    assert [clock.rotations(size, 60) for size in (1, 30, 100, 1000)] == [8, 6, 2, 2]


def test_every_line_of_the_csv_comes_back_as_its_row(tmp_path: Path) -> None:
    lines = written(tmp_path / "gpu.csv")
    assert rows.read(lines) == ALL
    assert {tuple(line[name] for name in rows.CERTIFICATE) for line in lines} == {STAMP}


def test_a_row_is_on_the_disk_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    with rows.Writer(path, STAMP) as writer:
        writer.write(PASS)
        assert path.read_text().count("\n") == 2


def test_what_only_cudnn_cannot_do_is_told_and_is_no_failure_of_ours() -> None:
    theirs, both = (
        replace(STEP, note=note) for note in ("cuDNN: no CUDA graph", "no CUDA graph; cuDNN: no CUDA graph")
    )
    assert (theirs.failed, both.failed) == (False, True)
    assert len(table.notes([theirs, both])) == 2


def test_a_run_without_rows_leaves_an_older_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    before = written(path)
    with rows.Writer(path, STAMP):
        pass
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == before


def test_bars_that_nobody_measured_say_so() -> None:
    assert {bar.answer for bar in bars.bars([])} == {"unmeasured"}
    assert len(bars.bars([])) == 17


def test_bars_are_held_against_what_was_measured() -> None:
    found = {bar.text: bar for bar in bars.bars(ALL)}
    dense = found["bfloat16, Cin from 256, 100% of columns, times as fast"]
    assert (dense.answer, dense.details) == ("2.00, reached", "1 layers, at the floor 2.50")
    assert found["bfloat16, Cin from 256, 50% of columns, times as fast"].answer == "unmeasured"  # its gate is red
    step = found["training step of R3D-18, bfloat16, 50% of columns, times as fast"]
    assert (step.answer, step.details) == ("1.40, reached", "masked 0.90, compressed 1.20, masked graph 1.40")
    memory = found["peak memory of R3D-18's training step, of cuDNN's"]
    assert (memory.answer, memory.details) == ("1.50, missed", "most of 2: r3d18 masked 50%")
    assert found["transforms, of copy bandwidth"].answer == "0.75, missed"
    assert found["products, Cin from 256, of the matmul rate"].answer == "0.75, reached"
    assert found["peak memory of a layer's training step, of cuDNN's"].answer == "1.25, reached"


def test_a_layer_counts_with_its_faster_tile() -> None:
    slow = replace(PASS, precision="ieee", speedup=2.0)
    fast = replace(slow, tile="F(4x4x4, 3x3x3)", speedup=4.0)
    other = replace(slow, layer="c3d-2a", speedup=1.0)
    assert bars.bars([slow, fast, other])[0].value == pytest.approx(2.0)


def test_products_in_float32_are_those_of_cublas() -> None:
    ours = replace(STAGE, kind="products", precision="ieee", of_ceiling=0.1)
    assert bars.bars([ours, replace(ours, kind="bmm", of_ceiling=0.9)])[14].value == 0.9


def test_tables_show_numbers_failures_and_bars() -> None:
    console = Console(width=table.WIDTH, file=io.StringIO(), record=True)
    for one in table.tables(ALL):
        console.print(one)
    text = console.export_text()
    assert "0.500 2.00x 80% failed - 1.0e-03" in " ".join(text.split())
    assert [title for title in ("ceilings", "forward pass", "stages", "MiB", "R3D-18", "bars") if title in text] == [
        "ceilings", "forward pass", "stages", "MiB", "R3D-18", "bars"]  # fmt: skip
    assert max(map(len, text.splitlines())) <= table.WIDTH
    assert table.notes(ALL) == ["forward c3d-3b half 50%: gate: Y is off"]


def test_the_page_says_what_was_measured_or_that_nothing_was(tmp_path: Path) -> None:
    assert page.table([]) == page.NOTHING
    text = page.table(written(tmp_path / "gpu.csv"))
    assert "| c3d-3b 256->256 at 8x28x28 | half | F(2x2x2, 3x3x3) | 1.000 NDHWC | 2.00x (80%) |  |  | 1.0e-03 |" in text
    assert "forward c3d-3b half: gate: Y is off." in text
    assert text.endswith("NVIDIA H200 | abc | torch 2 | 2026-01-01.")


def test_a_dry_run_is_no_result_on_the_page() -> None:
    assert page.table([dict.fromkeys(rows.cells(PASS), "") | {"kind": "forward"}]) == page.NOTHING


def test_measured_speed_ups_take_the_place_of_predicted_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "speedups.csv"
    monkeypatch.setattr(speedups, "table", lambda: ())
    predicted = [Speedup("forward", "half", channels, 1.0, 1.45, "H200", "") for channels in (256.0, 512.0)]
    path.write_text(speedups.text(predicted))
    slower = replace(PASS, tile="F(4x4x4, 3x3x3)", speedup=1.5)
    measured = [PASS, replace(PASS, layer="r3d18-layer3", speedup=8.0), slower, FAILED,
                replace(PASS, cin=64, cout=128, columns=0.25), MEMORY, replace(PASS, kind="training", speedup=1.25),
                replace(PASS, kind="input_grad")]  # fmt: skip
    assert speedups.rewrite(path, measured, STAMP[0], STAMP[3]) == 3
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
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_it_is_the_tile_that_the_function_takes(layer: Layer, precision: Precision) -> None:
    dtype = torch.bfloat16 if precision == "half" else torch.float32
    x: Any = SimpleNamespace(is_cuda=True, shape=(1, layer.cin, *layer.size), dtype=dtype, device=torch.device("cuda"))
    weight: Any = SimpleNamespace(shape=(layer.cout, layer.cin, 3, 3, 3))
    row = replace(PASS, precision=precision, cin=layer.cin, cout=layer.cout, size="x".join(map(str, layer.size)))
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
    speedups.rewrite(path, [PASS], STAMP[0], STAMP[3])
    assert len(speedups.known(path)) == len(speedups.table())


def test_the_committed_table_is_as_it_would_be_written() -> None:
    path = Path(__file__).parents[2] / "kernels" / "lrw_kernels" / "triton" / "speedups.csv"
    known = parse(csv.DictReader(io.StringIO(path.read_text())))
    assert speedups.text(speedups.merged(known, [])) == path.read_text()


def test_kept_columns_are_the_same_every_time() -> None:
    tile = Tile.of(2)
    assert kept(tile, 1.0) == tuple(range(64))
    assert kept(tile, 0.25) == kept(tile, 0.25)
    assert len(set(kept(tile, 0.25))) == 16


def test_jobs_that_take_too_long_are_late_and_those_that_fail_are_not() -> None:
    script = """
import os, sys, time
for name in sys.argv[1:]:
    os.write(1, f"{name}\\n".encode()) if name < "c" else time.sleep(60 * (name == "c"))
"""
    command = [sys.executable, "-c", script]
    found = compiled.compile_all(["a", "b", "c", "d", "e", "f"], 2, 6.0, command)
    assert found.done == {"a", "b"}
    assert found.late == {"c", "e"}
