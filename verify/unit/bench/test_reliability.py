"""Counting what is wrong: right networks give none, wrong ones all; pytest's counts are read; a row for each."""

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from bench.reliability import Row, command, fuzz, soak, table
from bench.rows import read

STATISTICS = """
verify/laws/test_arguments.py::test_one:
  - during generate phase (0.57 seconds):
    - Typical runtimes: ~ 1-4 ms
    - 1500 passing, {} failing, and 20 invalid test cases
  - Stopped because settings.max_examples=2000

verify/laws/test_arguments.py::test_two:
  - during reuse phase:
    - 3 passing, 0 failing, and 0 invalid test cases
"""


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU())
    monkeypatch.setattr(soak, "networks", lambda: [(net, [(4, 5, 6), (5, 4, 3)])])
    monkeypatch.setattr(soak, "EVERY", 0.1)


def test_what_is_right_is_counted(tiny: None) -> None:
    lines: list[str] = []
    row = soak.soak(0.02, 3, lines.append)
    assert row.cases > 3
    assert row.wrong == 0
    assert row.warm_mb is not None
    assert row.warm_mb > 50
    assert " 0 wrong" in lines[-1]


def test_what_is_wrong_is_counted(tiny: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrw.accelerate", lambda net, *_, **__: lambda x: 1.001 * net(x))
    row = soak.soak(0.02, 2, lambda _: None)
    assert row.wrong == row.cases > 0


@pytest.mark.slow
def test_the_networks_of_the_soak_take_their_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first and the last of each."""
    nets = [(net, [sizes[0], sizes[-1]]) for net, sizes in soak.networks()]
    monkeypatch.setattr(soak, "networks", lambda: nets)
    with torch.no_grad():
        assert all(
            float((fast(x) - y).abs().max()) <= soak.LIMIT * float(y.abs().max()) for fast, x, y in soak._calls()
        )


def ran(monkeypatch: pytest.MonkeyPatch, output: str, code: int = 0) -> None:
    answer = SimpleNamespace(stdout=output, stderr="", returncode=code)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)


@pytest.mark.parametrize(("failing", "code", "wrong"), [(0, 0, 0), (2, 1, 2), (0, 1, 1)])
def test_counts_are_read(failing: int, code: int, wrong: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ran(monkeypatch, STATISTICS.format(failing), code)
    row = fuzz.fuzz("damaged data files")
    assert (row.cases, row.wrong) == (1503 + failing, wrong)
    ran(monkeypatch, "no tests ran", 5)
    with pytest.raises(RuntimeError, match="counted no example:\nno tests ran"):
        fuzz.fuzz("damaged data files")


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "wrong"), [(99, 0), (5, 1)])
def test_hypothesis_counts_as_it_is_read(
    limit: int, wrong: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own words, not ours."""
    (tmp_path / "conftest.py").write_text(
        "from hypothesis import settings\nsettings.register_profile('nightly', max_examples=30, database=None)\n"
    )
    (tmp_path / "test_law.py").write_text(
        "from hypothesis import given, strategies as st\n"
        f"@given(st.integers(0, 50))\ndef test_law(n):\n    assert n <= {limit}\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    monkeypatch.setattr(fuzz, "LAWS", {"numbers": [str(tmp_path / "test_law.py")]})
    monkeypatch.chdir(tmp_path)
    row = fuzz.fuzz("numbers")
    assert row.cases >= (30 if not wrong else 1)
    assert (row.wrong > 0) == bool(wrong)


def test_the_laws_are_there() -> None:
    root = Path(__file__).parents[3]
    assert all((root / path).is_file() for paths in fuzz.LAWS.values() for path in paths)


@pytest.mark.parametrize("wrong", [0, 3])
def test_each_run_is_a_row(wrong: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(
        command, "soak", lambda minutes, threads, _: Row(f"{threads} threads", minutes, 10, wrong, 100, 101)
    )
    flags = ["--only", "soak", "--minutes", "3", "--csv", str(tmp_path / "r.csv")]
    assert [command.main(flags), command.main([*flags, "--threads", "2"])] == [int(wrong > 0)] * 2
    rows = read(Row, tmp_path / "r.csv")
    assert [row.what for row in rows] == ["8 threads", "2 threads"]
    assert table(rows)[2].startswith(f"| 8 threads | 3 | 10 | {wrong} | 100 to 101 MB (+1.0%) |")
    assert f"8 threads: 10 cases, {wrong} wrong, 3.0 min" in capsys.readouterr().out
