"""A sample of mutants: who dies is counted, the copy is as it was afterwards, the sources are never touched."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from verify import mutants
from verify.mutants import ROOT, Mutant

ADD = "def add(a, b):\n    return a + b\n"
TEST = "from made import add\n\ndef test_add():\n    assert add(2, 2) == 4\n"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "made.py").write_text(ADD)
    (tmp_path / "test_made.py").write_text(TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\nmarkers = slow\n")
    return tmp_path


@pytest.mark.slow
def test_tests_kill_what_they_see(copy: Path) -> None:
    texts = {"a * b": True, "a - b": False, "a +": False}
    for text, lives in texts.items():
        mutant = Mutant(Path("made.py"), ADD.replace("a + b", text), "")
        assert mutants.survives(mutant, copy, ["test_made.py"], 60) is lives
        assert (copy / "made.py").read_text() == ADD
    endless = Mutant(Path("made.py"), "while True:\n    pass\n", "")
    assert not mutants.survives(endless, copy, ["test_made.py"], 3)


def test_the_share_that_dies_decides(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def made(folder: str, seed: int) -> Iterator[Mutant]:
        assert (folder, seed) == ("lrw/pruning", 3)
        yield from (Mutant(Path("lrw/pruning/plan.py"), "", f"change {n}") for n in range(99))

    monkeypatch.setattr(mutants, "mutants", made)
    monkeypatch.setattr(mutants, "_passes", lambda *_: True)
    for living, code in ((1, 0), (2, 1)):
        monkeypatch.setattr(mutants, "survives", lambda m, *_, n=living: int(m.change.split()[1]) < n)
        assert mutants.main(["pruning", "--count", "10", "--seed", "3"]) == code
        assert f"pruning: {10 - living} of 10 died" in capsys.readouterr().out
    monkeypatch.setattr(mutants, "_passes", lambda *_: False)
    with pytest.raises(RuntimeError, match="pruning: its tests fail without a mutant"):
        mutants.main(["pruning"])


def test_what_is_asked_for_wrongly_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in ((["nothing"], "'nothing'; accepted are winograd"), (["--count", "0"], "accepted is 1")):
        with pytest.raises(SystemExit, match="2"):
            mutants.main(arguments)
        assert words in capsys.readouterr().err


def test_the_folders_and_tests_are_there() -> None:
    for folder, tests in mutants.PARTS.values():
        assert (ROOT / folder).is_dir()
        assert all((ROOT / test).exists() for test in tests.split())


def test_a_change_is_said_with_its_line() -> None:
    path = ROOT / "lrw" / "made.py"
    assert mutants._change(ADD, ADD.replace("+", "-"), path) == "lrw/made.py:2\n  - return a + b\n  + return a - b"
