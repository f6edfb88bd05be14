"""Lowering: the same bytes whatever is set, guards on IR and object, and no process or import left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrw_kernels.aarch64 import ir, lower
from lrw_kernels.aarch64.elf import read_elf
from lrw_kernels.aarch64.lower import lower_layer
from lrw_kernels.aarch64.targets import find_target
from verify.unit.exported_layers import ARM, BASE, NATIVE, SPECS, Builder, call


def python_env() -> dict[str, str]:
    """An environment in which another Python finds our modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def test_same_layer_same_bytes_whatever_is_set(built: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_OPT", "3")
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.chdir("/")
    assert lower_layer(SPECS["skew_odd"], ARM) == built("skew_odd", ARM).object.read_bytes()


def test_host_optimised_code_is_refused_with_the_childs_message(monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = lower._environment
    changed = {"NUMBA_OPT": "3", "NUMBA_LOOP_VECTORIZE": "1", "NUMBA_CPU_NAME": "skylake-avx512"}
    changed["NUMBA_CPU_FEATURES"] = "+avx2,+avx512f,-prefer-256-bit"
    monkeypatch.setattr(lower, "_environment", lambda folder: neutral(folder) | changed)
    with pytest.raises(RuntimeError, match=r"(?s)lowering layer for aarch64-linux-gnu .*IR guard: found"):
        lower_layer(BASE, ARM)


@pytest.mark.parametrize(
    ("check", "line", "found"),
    [
        (ir.check_raw, "call <4 x float> @llvm.x86.sse.rcp.ps(<4 x float> %a)", "llvm.x86.sse"),
        (ir.check_raw, "%a = load <8 x float>, ptr %p", "<8 x float>"),
        (ir.check_raw, "%a = load <4 x i64>, ptr %p", "<4 x i64>"),
        (ir.check_raw, "call void @NRT_incref(ptr %p)", "NRT_incref"),
        (ir.check_raw, "declare ptr @PyErr_Occurred()", "PyErr_Occurred"),
        (ir.check_raw, 'attributes #0 = { "target-cpu"="znver4" }', "znver4"),
        (ir.check_final, "load ptr, ptr inttoptr (i64 1406591 to ptr)", "1406591"),
        (ir.check_final, "store ptr @.const.picklebuf.ca8, ptr %excinfo", "picklebuf"),
    ],
)
def test_ir_guards(check: Any, line: str, found: str) -> None:
    check("%a = load <4 x float>, ptr %p\n")
    with pytest.raises(RuntimeError, match="IR guard") as error:
        check(f"%b = fadd float %c, %d\n{line}\n")
    assert found in str(error.value)


def test_object_guard(built: Builder) -> None:
    code, spec = read_elf(built("dense", ARM).object.read_bytes()), SPECS["dense"]
    ir.check_object(code, spec, find_target(ARM))
    for broken, spec_of, machine, message in [
        (code, spec, NATIVE, "machine 183"),
        (code, SPECS["pruned"], ARM, "exports"),
        (replace(code, undefined=frozenset({"expf"})), spec, ARM, "needs expf"),
        (replace(code, needed=("libm.so.6",)), spec, ARM, "needs libm"),
    ]:
        with pytest.raises(RuntimeError, match=message):
            ir.check_object(broken, spec_of, find_target(machine))
    with pytest.raises(ValueError, match="not a little-endian ELF64"):
        read_elf(b"MZ")


def _children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(child) for child in listed.split()]


def _is_alive(process: int) -> bool:
    """Whether it runs: one that has ended may stay listed as a zombie until somebody asks for its status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc/thread-self/children").exists(), reason="finds the child in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("wait", [0, 1])
def test_no_child_outlives_its_caller(tmp_path: Path, end: signal.Signals, wait: float) -> None:
    endless, scratch = tmp_path / "endless", tmp_path / "scratch"
    endless.mkdir()
    scratch.mkdir()
    (endless / "numba.py").write_text("import time\ntime.sleep(60)\n")
    script = "import sys; from lrw_kernels.aarch64 import LayerSpec, lower_layer;"
    script += "sys.path.insert(0, sys.argv[2]); lower_layer(LayerSpec.from_json(sys.argv[1]))"
    command = [sys.executable, "-c", script, BASE.to_json(), str(endless)]
    env = python_env() | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as parent:
        deadline = time.monotonic() + 20
        while not (found := _children(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(found) == 1
        time.sleep(wait)
        parent.send_signal(end)
        message = parent.communicate(timeout=20)[1]
    while (alive := _is_alive(found[0])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive
    if end == signal.SIGINT:
        assert "KeyboardInterrupt" in message
        assert list(scratch.iterdir()) == []


def test_import_is_light() -> None:
    script = "import sys, lrw_kernels.aarch64 as a; a.LayerSpec, a.build_layer, a.run_layer;"
    script += "print({'numba', 'llvmlite', 'torch', 'lrw'} & set(sys.modules))"
    assert call(sys.executable, "-c", script, env=python_env()) == "set()\n"
