"""The benchmark: it measures behind its gate, and a red gate stops it before anything is timed."""

import pytest
import torch

from bench import report, run, training
from bench.layers import Layer
from lrw.trace.table import TABLE
from lrw_kernels.winograd import Tile

SMALL = Layer("small", 4, 4, (6, 6, 6))


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


def test_the_tables_of_the_pages_are_those_of_the_committed_results() -> None:
    texts = [path.read_text() for path in report.PAGES]
    assert [report.updated(text) for text in texts] == texts
    assert sum(text.count("<!-- results:") for text in texts) == len(report.TABLES)


def test_every_operator_that_can_be_exported_is_in_the_documents_with_a_word_on_it() -> None:
    rows = [line.split(" | ") for line in report.operators_table().splitlines()[2:]]
    named = [name for names, _ in rows for name in names.removeprefix("| ").split(", ")]
    assert sorted(named) == sorted(f"`{name.replace('::', '.')}`" for name in TABLE)
    assert all(len(text) > 10 for _, text in rows)


def test_results_that_are_not_there_are_no_rows() -> None:
    assert report.read("nothing") == []


@pytest.mark.filterwarnings("ignore")
def test_a_training_step_is_measured_behind_its_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    row = training.measure(SMALL, Tile.of(2), "auto", 0.05)
    assert row["torch_ms"] > 0
    assert row["error"] < 1e-5
    monkeypatch.setattr(training, "adjoint_error", lambda *_: 0.0)
    with pytest.raises(AssertionError, match=r"error .* of dX above the bound"):
        training.measure(SMALL, Tile.of(2), "auto", 0.05)
