"""The command of the GPU bench: what it refuses in one line, its exits, and everything it does, in the interpreter."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import command
from bench.gpu.rows import Row
from bench.rows import read

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
pytest.importorskip("triton", reason="the bench measures Triton kernels")


def ran(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    variables = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | {"PYTHONPATH": paths} | environment
    program = [sys.executable, "-m", "bench.gpu", *arguments]
    return subprocess.run(program, env=variables, cwd=ROOT, capture_output=True, text=True, check=False)


def test_precisions_and_layers_come_in_the_bench_s_order() -> None:
    given = command.arguments(["--precisions", "ieee, half", "--layers", "unet,c3d-3"])
    assert given.precisions == ["half", "ieee"]
    assert [layer.name for layer in given.layers] == ["c3d-3b", "unet-dec0", "unet-dec1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_one_line_says_so() -> None:
    done = ran()
    assert (done.returncode, done.stdout) == (2, "")
    expected = r"bench_gpu: the backend computes on NVIDIA GPUs only.*|bench_gpu: the backend finds no NVIDIA GPU; .*\n"
    assert re.fullmatch(expected, done.stderr)


def test_a_dry_run_goes_through_everything(tmp_path: Path) -> None:
    path = tmp_path / "gpu.csv"
    done = ran("--dry", "--precisions", "half", "--csv", str(path))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    rows = read(Row, path)
    kinds = ["ceiling", "forward", "step", "input_grad", "weight_grad", "memory", "graph", "training",
             "graph_input_grad", "graph_weight_grad"]  # fmt: skip
    assert list(dict.fromkeys(row.kind for row in rows)) == kinds
    assert {row.note for row in rows} == {""}
    assert [row.form for row in rows if row.kind == "step"] == ["masked", "compressed"]
    assert {row.ms for row in rows} | {row.speedup for row in rows} | {row.mib for row in rows} == {None}
    assert all(0 < row.error < 0.03 for row in rows if row.error is not None)
    assert sum(row.error is not None for row in rows) == 13  # of passes at both shares, in graphs too, of training
    assert "unmeasured" in done.stdout
    assert "nothing was timed" in done.stdout


class Steps:
    """Plans that a run is given in place of its own."""

    def __init__(self, *runs: Any) -> None:
        self.runs = runs

    def __call__(self, *_: object) -> list[Any]:
        from bench.gpu.plan import Step

        return [Step(f"step {i}", run) for i, run in enumerate(self.runs)]


def row(_: object) -> Iterator[Row]:
    yield Row("forward", "c3d-3b", "half", columns=1.0)


def broken(_: object) -> Iterator[Row]:
    yield Row("forward", "c3d-3b", "half", columns=0.5)
    raise RuntimeError("no room")


def interrupted(_: object) -> Iterator[Row]:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("runs", "minutes", "status", "lines", "said"),
    [
        ([row, row], "1", 0, 2, "nothing was timed"),
        ([row, broken, row], "1", 1, 4, "step 1: RuntimeError: no room"),
        ([row, interrupted, row], "1", 130, 1, "stopped; what was measured until then is above"),
        ([row, row], "1e-9", 0, 0, "not measured, time was up: step 0, step 1"),
    ],
)
def test_a_run_keeps_what_it_has(
    runs: list[Any], minutes: str, status: int, lines: int, said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from bench.gpu import running

    monkeypatch.setattr(running.plan, "steps", Steps(*runs))
    monkeypatch.setattr(command.triton, "refusal", lambda *_: None)
    path, table = tmp_path / "gpu.csv", tmp_path / "speedups.csv"
    assert command.main(["--dry", "--minutes", minutes, "--csv", str(path), "--table", str(table)]) == status
    assert len(path.read_text().splitlines()) == (1 + lines if lines else 0)
    assert said in " ".join(capsys.readouterr().out.split("\n"))
    assert not table.exists()


def test_what_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.triton, "refusal", lambda *_: None)
    assert command.main(["--dry", "--csv", "/proc/gpu.csv"]) == 2
    assert re.search(r"^bench_gpu: .*/proc/gpu.csv", capsys.readouterr().err)
