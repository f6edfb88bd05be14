"""Lowering: the same bytes whatever is set, guards on IR and object, and no process or import left behind."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrw_kernels.aot import guard, ir, lower
from lrw_kernels.aot.abi import exported_symbols
from lrw_kernels.aot.code import Code
from lrw_kernels.aot.targets import find_target
from lrw_kernels.aot.weights import HEADER_BYTES
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.codegen.macho import read_macho
from lrw_kernels.codegen.objects import ObjectFile
from lrw_kernels.program.assemble import assemble
from verify.programs.exported import ARM, NATIVE, THREADS, Builder, call, case
from verify.unit.aot.test_files import object_of

pytestmark = pytest.mark.slow


def code_of(name: str, target: str = ARM) -> Code:
    return Code.of(assemble(case(name).network, find_target(target).machine, THREADS))


def python_env() -> dict[str, str]:
    """An environment in which another Python finds our modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def test_same_network_same_bytes_whatever_is_set(built: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_OPT", "3")
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setenv("LANG", "C")
    monkeypatch.setenv("PYTHONHASHSEED", "77")
    monkeypatch.chdir("/")
    assert lower.lower(code_of("tiny"), ARM) == object_of(built("tiny", ARM))


@pytest.mark.parametrize("name", ["every", "c3d", "pruned"])
def test_same_network_same_code_and_weights(built: Builder, name: str) -> None:
    first, again = (assemble(case(name).network, find_target(ARM).machine, THREADS) for _ in range(2))
    assert Code.of(first).to_json() == Code.of(again).to_json()
    assert first.weights == again.weights == built(name, ARM).weights.read_bytes()[HEADER_BYTES:]


@pytest.mark.parametrize("name", ["every", "tiny"])
def test_code_survives_json(name: str) -> None:
    code = code_of(name)
    assert Code.from_json(code.to_json()) == code


def test_host_optimised_code_is_refused_with_the_childs_message(monkeypatch: pytest.MonkeyPatch) -> None:
    neutral = lower._environment
    changed = {"NUMBA_OPT": "3", "NUMBA_LOOP_VECTORIZE": "1", "NUMBA_CPU_NAME": "skylake-avx512"}
    changed["NUMBA_CPU_FEATURES"] = "+avx2,+avx512f,-prefer-256-bit"
    monkeypatch.setattr(lower, "_environment", lambda folder: neutral(folder) | changed)
    with pytest.raises(RuntimeError, match=r"(?s)lowering every for aarch64-linux-gnu .*IR guard: found"):
        lower.lower(code_of("every"), ARM)


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


def test_wider_vectors_are_let_through_for_machines_that_have_them() -> None:
    line = "%a = load <8 x float>, ptr %p"
    ir.check_raw(line, find_target(NATIVE).vector_bits)
    with pytest.raises(RuntimeError, match="IR guard"):
        ir.check_raw(line, find_target(ARM).vector_bits)


def test_the_object_guard(built: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    data, target = object_of(built("tiny", ARM)), find_target(ARM)
    guard.check_object(data, "tiny", target)
    with pytest.raises(RuntimeError, match="machine 183"):
        guard.check_object(data, "tiny", find_target(NATIVE))
    with pytest.raises(RuntimeError, match="exports"):
        guard.check_object(data, "other", target)
    for undefined, needed, message in [({"expf"}, (), "needs expf"), (set(), ("libm.so.6",), "needs libm")]:
        file = ObjectFile(183, exported_symbols("tiny"), frozenset(undefined), needed)
        monkeypatch.setattr(guard, "read_elf", lambda data, file=file: file)
        with pytest.raises(RuntimeError, match=message):
            guard.check_object(data, "tiny", target)


@pytest.mark.parametrize(("read", "what"), [(read_elf, "ELF64"), (read_macho, "Mach-O")])
@pytest.mark.parametrize("data", [b"", b"MZ", b"\x7fELF\x01\x01", b"\xce\xfa\xed\xfe" + bytes(28)])
def test_other_files_are_no_objects(read: Any, what: str, data: bytes) -> None:
    with pytest.raises(ValueError, match=f"not a little-endian .*{what}"):
        read(data)


@pytest.mark.parametrize("target", ["arm64-apple-macos", "arm64-apple-ios"])
def test_apple_objects_have_the_functions_and_need_nothing(target: str) -> None:
    file = read_macho(lower.lower(code_of("tiny", target), target))
    assert file == ObjectFile(0x0100000C, exported_symbols("tiny"), frozenset())


DIGEST = """
import sys
import numpy as np
from numba import njit
from lrw_kernels.aot.kernels import digest_function
digest, scratch = njit(digest_function()), np.zeros(80, np.int64)
for size in map(int, sys.argv[1].split(",")):
    data = (np.arange(size + 1) * 151 % 253).astype(np.uint8)
    digest(data.ctypes.data, size, scratch.ctypes.data)
    print("".join(f"{word:08x}" for word in scratch[:8]))
"""


def test_the_digest_is_sha_256_at_every_length() -> None:
    sizes = [*range(201), 255, 256, 257, 4095, 65_537]
    found = call(sys.executable, "-W", "ignore", "-c", DIGEST, ",".join(map(str, sizes)), env=python_env()).split()
    data = (np.arange(65_538) * 151 % 253).astype(np.uint8).tobytes()
    assert found == [hashlib.sha256(data[:size]).hexdigest() for size in sizes]


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
    (tmp_path / "code.json").write_text(code_of("tiny").to_json())
    script = "import sys; from lrw_kernels.aot.code import Code; from lrw_kernels.aot.lower import lower;"
    script += "sys.path.insert(0, sys.argv[2]); lower(Code.from_json(open(sys.argv[1]).read()))"
    command = [sys.executable, "-c", script, str(tmp_path / "code.json"), str(endless)]
    env = python_env() | {"TMPDIR": str(scratch)}
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as parent:
        deadline = time.monotonic() + 120
        while not (found := _children(parent.pid)) and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(found) == 1
        time.sleep(wait)
        parent.send_signal(end)
        message = parent.communicate(timeout=120)[1]
    while (alive := _is_alive(found[0])) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive
    if end == signal.SIGINT:
        assert "KeyboardInterrupt" in message
        assert list(scratch.iterdir()) == []


def test_import_is_light() -> None:
    seen = "print(*sorted({'numba', 'llvmlite.binding', 'torch', 'lrw', 'numpy'} & set(sys.modules)));"
    names = "a.build_network, a.run_network, a.Artifacts;"
    found = call(sys.executable, "-c", f"import sys, lrw_kernels.aot as a; {seen} {names} {seen}", env=python_env())
    assert found == "\nnumpy\n", "the package alone needs nothing, its functions no compiler"
