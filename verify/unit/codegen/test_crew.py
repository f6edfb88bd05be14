"""Kernels that several processes compile: all come to lie on disk, and whatever happens to a helper, no call fails."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrw_kernels.codegen import compiled, crew, store
from lrw_kernels.codegen.kernel import Kernel

KERNELS = [
    Kernel("cpu.kernels.matrix_item", ("float32", lanes, flip), 3) for lanes in (4, 8, 16) for flip in (False, True)
]


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A process that has no kernels yet, and may have two helpers."""
    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LRW_COMPILERS", "3")
    monkeypatch.setattr(compiled, "_ADDRESSES", {})
    monkeypatch.setattr(crew, "ENOUGH", 2)
    tmp_path.chmod(0o700)
    yield tmp_path
    crew._end()


def noted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[Any]:
    """What the function `name` of `owner` gives from now on, call by call."""
    come, function = list[Any](), getattr(owner, name)

    def noting(*given: Any) -> Any:
        come.append(function(*given))
        return come[-1]

    monkeypatch.setattr(owner, name, noting)
    return come


def test_all_are_kept_and_each_is_compiled_once(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, processes = noted(monkeypatch, compiled, "compile_object"), noted(monkeypatch, crew, "_started")
    assert all(kernel.lacking for kernel in KERNELS)
    crew.compile_all([*KERNELS, *KERNELS])
    assert not any(kernel.lacking for kernel in KERNELS)
    assert len([path for path in empty.iterdir() if path.suffix == ".o"]) == len(KERNELS)
    assert len(here) < len(KERNELS), "the helpers did nothing"
    assert len(processes) == 2
    count = len(here)
    assert all(kernel.address for kernel in KERNELS), "what others compiled loads"
    assert len(here) == count


def test_helpers_stay_for_the_next_program(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = noted(monkeypatch, crew, "_started")
    crew.compile_all(KERNELS[:4])
    crew.compile_all(KERNELS[4:])
    assert len(processes) == 2
    assert [helper.poll() for helper in processes] == [None, None]
    crew._end()
    assert all(helper.poll() is not None for helper in processes)


@pytest.mark.parametrize("instead", ["", "raise SystemExit(3)", "import sys; sys.stdin.readline()"])
def test_what_a_dead_helper_leaves_is_compiled_here(instead: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_SERVE", instead)
    crew.compile_all(KERNELS[:3])
    assert all(kernel.address for kernel in KERNELS[:3])
    assert not crew._idle, "the dead are not asked again"


def test_a_helper_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "_SERVE", "import time; time.sleep(600)")
    monkeypatch.setattr(crew, "PATIENCE", 0.1)
    crew.compile_all(KERNELS[:3])
    assert all(kernel.address for kernel in KERNELS[:3])
    assert not crew._idle


def test_an_interruption_ends_the_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = noted(monkeypatch, crew, "_started")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(compiled, "address", interrupted)
    with pytest.raises(KeyboardInterrupt):
        crew.compile_all(KERNELS)
    assert [helper.wait(30) for helper in processes] == [-9, -9]


def test_who_may_not_or_cannot_start_others_compiles_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRW_COMPILERS", "1")
    assert crew._helpers(100) == []
    monkeypatch.setenv("LRW_COMPILERS", "9")
    monkeypatch.setattr(sys, "executable", "/opt/application")
    assert crew._helpers(100) == []
    monkeypatch.undo()
    monkeypatch.setenv("LRW_COMPILERS", "2")

    def refused() -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(crew, "_started", refused)
    assert crew._helpers(100) == []


def test_where_nothing_is_kept_nothing_is_missing(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.chmod(0o777)
    monkeypatch.setattr(store, "_said", True)
    processes = noted(monkeypatch, crew, "_started")
    assert not KERNELS[0].lacking
    crew.compile_all(KERNELS)
    assert processes == []
