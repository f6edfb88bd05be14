"""The benchmark: it measures behind its gate, and a red gate stops it before anything is timed."""

import pytest
import torch

from bench import report, run, training
from bench.cases import Case
from lrw_kernels.winograd import Tile

SMALL = Case("small", 4, 4, (6, 6, 6))


@pytest.mark.filterwarnings("ignore")
def test_a_case_gives_a_row_for_each_share_of_columns() -> None:
    rows = run.measure(SMALL, Tile.of(2), "auto", 0.05)
    assert [row["kept"] for row in rows] == [64, 32, 16]
    assert all(row["torch_ms"] > 0 and row["lrw_ms"] > 0 and row["error"] < 1e-5 for row in rows)


@pytest.mark.filterwarnings("ignore")
def test_a_red_gate_stops_before_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        pytest.fail("timed behind a red gate")

    monkeypatch.setattr(run, "interleaved", never)
    monkeypatch.setattr(run, "domain_conv3d", lambda *_, **__: torch.zeros(1, 4, 6, 6, 6))
    with pytest.raises(AssertionError, match=r"small: error .* nothing was timed"):
        run.measure(SMALL, Tile.of(2), "auto", 0.05)


def test_the_tables_of_the_readme_are_those_of_the_committed_results() -> None:
    text = report.README.read_text()
    assert report.updated(text) == text
    assert text.count("<!-- results:") == len(report.TABLES)


@pytest.mark.filterwarnings("ignore")
def test_a_training_step_is_measured_behind_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    row = training.measure(SMALL, Tile.of(2), "auto", 0.05)
    assert row["torch_ms"] > 0
    assert row["error"] < 1e-5
    monkeypatch.setattr(training, "adjoint_error", lambda *_: 0.0)
    with pytest.raises(AssertionError, match=r"error .* of dX above the bound"):
        training.measure(SMALL, Tile.of(2), "auto", 0.05)
