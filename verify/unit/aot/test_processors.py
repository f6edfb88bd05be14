"""Libraries ask the processor before they use what not all have, and say so instead of dying."""

import subprocess
from pathlib import Path

import pytest

from lrw_kernels.aot import emulate, run_network
from lrw_kernels.aot.abi import Status
from lrw_kernels.aot.emulate import build_example
from verify.programs.exported import ARM, NATIVE, WIDE, Builder, case, need

pytestmark = pytest.mark.slow

LACKING = [f"Haswell,-{what}" for what in ("fma", "avx2", "bmi1", "bmi2", "abm", "movbe", "f16c", "popcnt", "xsave")]


@pytest.fixture(scope="module")
def example(built: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example program of the smallest network, with its input beside it."""
    need("qemu-x86_64", target=NATIVE)
    folder = tmp_path_factory.mktemp("example")
    (folder / "input").write_bytes(case("tiny").x.tobytes())
    return build_example(built("tiny", NATIVE), folder)


def status(built: Builder, example: Path, cpu: str, target: str = NATIVE) -> int:
    command = ["qemu-x86_64", "-cpu", cpu, str(example), str(built("tiny", target).weights), "input", "output"]
    return subprocess.run(command, cwd=example.parent, capture_output=True, check=False).returncode


def test_x86_64_v3_is_enough(built: Builder, example: Path) -> None:
    assert status(built, example, "Haswell") == Status.OK


@pytest.mark.parametrize("cpu", ["qemu64", "Nehalem", *LACKING])
def test_less_than_x86_64_v3_is_refused_and_not_an_illegal_instruction(built: Builder, example: Path, cpu: str) -> None:
    assert status(built, example, cpu) == Status.UNSUPPORTED_CPU


def test_less_than_x86_64_v4_is_refused_by_libraries_for_it(built: Builder, example: Path, tmp_path: Path) -> None:
    wide = build_example(built("tiny", WIDE), tmp_path)
    (tmp_path / "input").write_bytes(case("tiny").x.tobytes())
    assert status(built, wide, "Haswell", WIDE) == Status.UNSUPPORTED_CPU


def test_a_run_that_fails_gives_the_status_by_name(built: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    need(target=ARM)
    refuses = ["sh", "-c", f"exit {int(Status.UNSUPPORTED_CPU)}"]
    monkeypatch.setattr(emulate, "launcher", lambda *_: refuses)
    with pytest.raises(RuntimeError, match=r"gave exit status 7, LRW_UNSUPPORTED_CPU$"):
        run_network(built("tiny", ARM), case("tiny").x)
    monkeypatch.setattr(emulate, "launcher", lambda *_: ["sh", "-c", "echo no such processor; exit 1"])
    with pytest.raises(RuntimeError, match=r"gave exit status 1\nno such processor$"):
        run_network(built("tiny", ARM), case("tiny").x)
