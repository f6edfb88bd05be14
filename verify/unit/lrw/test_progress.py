"""What is said while something long runs: bars on a terminal, now and then a line elsewhere, nothing where quiet."""

import io

import pytest
from rich.console import Console

from lrw import progress
from lrw.progress import Reporter


def said(*, quiet: bool = False, terminal: bool = False) -> str:
    out = io.StringIO()
    reporter = Reporter(Console(file=out, force_terminal=terminal, width=80), quiet=quiet)
    with reporter.status("planning"), reporter.bar("pruning layers", 3) as update:
        for done in range(1, 4):
            update(done)
    return out.getvalue()


def test_elsewhere_than_on_a_terminal_there_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said() == ""  # all of it took less than half a minute
    times = iter((0.0, 10.0, 31.0, 31.0, 40.0))
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    assert said() == "pruning layers: 2 of 3\n"


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert said(quiet=True) == ""
    assert said().count("\n") == 3
    assert "pruning layers" in said(terminal=True)
