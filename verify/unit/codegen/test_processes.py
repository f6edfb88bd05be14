"""Processes that make kernels, each with settings for Numba, or with what it finds on disk, of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrw_kernels.codegen import store

ROOT = Path(__file__).parents[3]
SCRIPT = """
import numpy as np
from lrw_kernels import reference
from lrw_kernels.cpu.library import clear_item
from lrw_kernels.codegen import threads
from lrw_kernels.cpu.winograd.library import transform
from lrw_kernels.cpu.winograd.recipe import Recipe
from lrw_kernels.cpu.records import Clear

data = np.arange(1, 17)
record = Clear(data.ctypes.data, 8 * 9)
threads.run(clear_item().address, record.address, 1, 0, 0, 1)
assert data.tolist() == [0] * 9 + list(range(10, 17))
assert transform(Recipe("gather", "B", "F(1x1x2,1x1x3)", "float32", 4, "float32", (0, 1, 2, 3))).address
a, b = np.arange(24.0).reshape(2, 3, 4) - 7, np.arange(40.0).reshape(2, 4, 5) - 9
assert (reference.column_products(a, b) == a @ b).all()
"""
USER_FIRST = (
    """
import numpy as np
from numba import config, njit
config.BOUNDSCHECK = 1
kept, reload_config = {name: value for name, value in vars(config).items() if name.isupper()}, config.reload_config

@njit
def at(values, i):
    return values[min(max(i, -9), 9)]

def check():
    try:
        at(np.zeros(3), 5)
    except IndexError:
        return
    raise AssertionError("the user's bounds are not checked")

check()
"""
    + SCRIPT
    + """
assert {name: value for name, value in vars(config).items() if name.isupper()} == kept
assert config.reload_config is reload_config
at = njit(at.py_func)
check()
"""
)
DEBUGGING = ("DEBUGINFO", "DEBUG", "DUMP_IR", "DUMP_ASSEMBLY", "DEVELOPER_MODE", "FULL_TRACEBACKS", "ENABLE_PROFILING")
OTHER_CODE = {"OPT": "0", "BOUNDSCHECK": "1", "LOOP_VECTORIZE": "0", "SLP_VECTORIZE": "1", "LLVM_REFPRUNE_PASS": "0"}
SETTINGS = {
    "no compiler": {"DISABLE_JIT": "1"},
    "debugging": dict.fromkeys(DEBUGGING, "1"),
    "other code": OTHER_CODE | {"CPU_NAME": "generic", "CPU_FEATURES": "", "ENABLE_AVX": "0"},
}


def run(folder: Path, script: str = SCRIPT, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own, in `folder`; kernels are kept in "kernels" there."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    own |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "LRW_CACHE_DIR": str(folder / "kernels"), **environment}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def kernels(folder: Path, script: str = SCRIPT, **environment: str) -> dict[str, bytes]:
    """What such a process leaves of the script's kernels."""
    run(folder, script, **environment)
    return {path.name: path.read_bytes() for path in (folder / "kernels").iterdir()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    found = kernels(tmp_path_factory.mktemp("plain"))
    assert len(found) == 4
    return found


@pytest.mark.parametrize("name", SETTINGS)
def test_variables_change_no_kernel(name: str, plain: dict[str, bytes], tmp_path: Path) -> None:
    variables = {f"NUMBA_{setting}": value for setting, value in SETTINGS[name].items()}
    assert kernels(tmp_path, **variables) == plain


def test_a_configuration_file_changes_no_kernel(plain: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("yaml", reason="Numba reads its file with PyYAML")
    (tmp_path / ".numba_config.yaml").write_text("disable_jit: 1\nboundscheck: 1\ndebuginfo: 1\nopt: '0'\n")
    assert kernels(tmp_path) == plain


def test_a_program_keeps_its_settings_and_changes_no_kernel(plain: dict[str, bytes], tmp_path: Path) -> None:
    assert kernels(tmp_path, USER_FIRST, NUMBA_CPU_NAME="generic", NUMBA_OPT="max") == plain


def test_kernels_on_disk_do_without_numba(plain: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "kernels").mkdir(0o700)
    for name, data in plain.items():
        (tmp_path / "kernels" / name).write_bytes(data)
        (tmp_path / "kernels" / name).chmod(0o600)
    assert kernels(tmp_path, SCRIPT + "import sys\nassert 'numba' not in sys.modules\n") == plain


def test_a_folder_others_may_write_to_is_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "kernels"
    folder.mkdir()
    folder.chmod(0o777)
    said = run(tmp_path).stderr
    assert said.count("kernels are not kept") == 1
    assert f"others may write to {folder} (mode 0777)" in said
    assert "later runs" not in said
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("garbage", [b"", b"\x7fELF" * 999, bytes(range(256)) * 16], ids=["empty", "magic", "noise"])
def test_garbage_with_a_right_checksum_stops_nothing(
    garbage: bytes, plain: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRW_CACHE_DIR", str(tmp_path / "kernels"))
    for name in plain:
        assert store.write(name, garbage)
    assert kernels(tmp_path) == plain
