"""Exported layers: equal to the reference natively and under qemu, the C contract, and nothing beside it."""

import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrw_kernels import reference
from lrw_kernels.aarch64 import build, ir, lower
from lrw_kernels.aarch64.build import Artifacts, build_layer, pack_weights
from lrw_kernels.aarch64.elf import read_elf
from lrw_kernels.aarch64.emulate import aligned_buffer, missing_tools, run_layer
from lrw_kernels.aarch64.link import link_shared
from lrw_kernels.aarch64.lower import lower_layer
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import TARGETS, find_target
from lrw_kernels.winograd import Tile, domain_error

NATIVE, ARM, ANDROID = "x86_64-linux-gnu", "aarch64-linux-gnu", "aarch64-linux-android24"
BASE = LayerSpec("layer", Tile.of(2), (1, 1, 1), (4, 4, 4), 2, 3, tuple(range(64)), True)


def some_columns(count: int, tile: Tile) -> tuple[int, ...]:
    """`count` random positions of `tile`, sorted."""
    return tuple(sorted(np.random.default_rng(count).choice(tile.positions, count, replace=False).tolist()))


def _specs() -> list[LayerSpec]:
    skew, flat = Tile.of((1, 2, 4), (2, 3, 3), origin=(0, 1, 3)), Tile.of((1, 2, 2), (1, 3, 3))
    return [
        LayerSpec("dense", Tile.of(2), (1, 1, 1), (5, 6, 7), 8, 8, tuple(range(64)), False),
        LayerSpec("pruned", Tile.of(4), (1, 1, 1), (8, 8, 8), 4, 6, some_columns(54, Tile.of(4)), True),
        LayerSpec("skew_odd", skew, (0, 0, 0), (4, 7, 9), 3, 5, some_columns(20, skew), True),
        LayerSpec("batch2", flat, (0, 2, 1), (3, 5, 4), 5, 2, some_columns(7, flat), False, 2),
    ]


SPECS = {spec.name: spec for spec in _specs()}
RUNS = [(NATIVE, "host"), (ARM, "cortex-a53"), (ARM, "cortex-a76"), (ANDROID, "cortex-a53")]
EVERY_RUN = [(n, t, c) for n in SPECS for t, c in RUNS if t != ANDROID or n == "pruned"]


@dataclass(frozen=True)
class Case:
    """A layer with values and what the reference makes of them."""

    spec: LayerSpec
    x: Any
    u: Any
    bias: Any

    @staticmethod
    def of(spec: LayerSpec) -> "Case":
        draw = np.random.default_rng(7).standard_normal
        x, u, bias = (draw(s).astype(np.float32) for s in (spec.input_shape, spec.weight_shape, spec.cout))
        return Case(spec, x, u, bias if spec.bias else None)

    def expected(self, dtype: Any) -> Any:
        """The reference in `dtype` on the layer's float32 values."""
        spec = self.spec
        x, u = self.x.astype(dtype), self.u.astype(dtype)
        y = reference.winograd_conv3d(x, u, spec.tile, spec.padding, spec.kept)
        return y if self.bias is None else y + self.bias.astype(dtype)


class Builder:
    """Layers built once for all tests, two at a time, in the background."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.cases = {name: Case.of(spec) for name, spec in SPECS.items()}
        wanted = dict.fromkeys((name, target) for name, target, _ in EVERY_RUN)
        self._jobs: dict[tuple[str, str], Future[Artifacts]] = {
            (name, target): pool.submit(self._build, name, folder / target, target) for name, target in wanted
        }

    def _build(self, name: str, folder: Path, target: str) -> Artifacts:
        case = self.cases[name]
        return build_layer(case.spec, case.u, case.bias, folder, target=target)

    def __call__(self, name: str, target: str) -> Artifacts:
        return self._jobs[name, target].result()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    pool = ThreadPoolExecutor(2)
    yield Builder(tmp_path_factory.mktemp("layers"), pool)
    pool.shutdown(cancel_futures=True)


def need(*tools: str, target: str | None = None) -> None:
    """Skip with the reason when something is missing; fail where LRW_REQUIRE_QEMU says it must be there."""
    if target == NATIVE:
        tools += ("gcc",)
    missing = missing_tools(target) if target else []
    missing += [tool for tool in tools if shutil.which(tool) is None]
    if missing and os.environ.get("LRW_REQUIRE_QEMU") == "1":
        pytest.fail(f"LRW_REQUIRE_QEMU=1, but missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


def python_env() -> dict[str, str]:
    """An environment in which another Python finds our modules."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}


def call(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    texts = [str(part) for part in command]
    done = subprocess.run(texts, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# Numbers


@pytest.mark.parametrize(("name", "target", "cpu"), EVERY_RUN)
def test_layer_equals_the_reference(built: Builder, name: str, target: str, cpu: str) -> None:
    need(target=target)
    case = built.cases[name]
    y = run_layer(built(name, target), case.x, cpu=cpu)
    assert np.isfinite(y).all()
    exact, spec = case.expected(np.float64), case.spec
    norms = np.linalg.norm(case.u.astype(np.float64), axis=1).max(axis=1)
    eps = float(np.finfo(np.float32).eps)
    bound = domain_error(spec.tile, spec.kept, norms, float(abs(case.x).max()), spec.cin, eps)
    bound += eps * abs(exact).max() if spec.bias else 0
    assert bound < 1e-2 * abs(exact).max(), "the bound itself must mean something"
    assert abs(y - exact).max() <= bound
    # Neither contraction nor fast-math: the same IEEE operations in the same order on every machine.
    np.testing.assert_array_equal(y, case.expected(np.float32))


class Native:
    """The run function of a natively built layer, with its buffers, each followed by 64 bytes of canary."""

    def __init__(self, artifacts: Artifacts, x: Any) -> None:
        spec = artifacts.spec
        library = ctypes.CDLL(str(artifacts.library))
        self.run = library[f"lrw_{spec.name}_run"]
        self.run.argtypes, self.run.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        self.space = library[f"lrw_{spec.name}_workspace_bytes"]
        self.space.restype = ctypes.c_size_t
        self.version = library.lrw_abi_version
        self.version.restype = ctypes.c_uint32
        sizes = (x.nbytes, 4 * int(np.prod(spec.output_shape)), spec.weights_bytes, spec.workspace_bytes)
        self.buffers = [aligned_buffer(size + 64) for size in sizes]
        self.sizes = sizes
        self.buffers[0][: x.nbytes] = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        self.buffers[2][: spec.weights_bytes] = np.fromfile(artifacts.weights, np.uint8)
        self.addresses = [buffer.ctypes.data for buffer in self.buffers]
        self.shape = spec.output_shape

    @property
    def output(self) -> Any:
        return self.buffers[1][: self.sizes[1]].view(np.float32).reshape(self.shape)


@pytest.fixture
def native(built: Builder) -> Native:
    need(target=NATIVE)
    return Native(built("pruned", NATIVE), built.cases["pruned"].x)


def test_run_writes_output_and_workspace_and_no_further(built: Builder, native: Native) -> None:
    before = [buffer.copy() for buffer in native.buffers]
    assert native.run(*native.addresses) == 0
    np.testing.assert_array_equal(native.output, built.cases["pruned"].expected(np.float32))
    np.testing.assert_array_equal(native.buffers[0], before[0])
    np.testing.assert_array_equal(native.buffers[2], before[2])
    for buffer, size in zip(native.buffers, native.sizes, strict=True):
        assert (buffer[size:] == 0xFF).all()


def test_a_second_run_starts_afresh(native: Native) -> None:
    native.run(*native.addresses)
    first = native.output.copy()
    assert native.run(*native.addresses) == 0
    np.testing.assert_array_equal(native.output, first)


def test_threads_share_the_library(built: Builder) -> None:
    need(target=NATIVE)
    case = built.cases["pruned"]
    scaled = [Case(case.spec, case.x * np.float32(k), case.u, case.bias) for k in range(1, 5)]
    calls = [Native(built("pruned", NATIVE), each.x) for each in scaled]
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda c: [c.run(*c.addresses) for _ in range(20)], calls))
    assert codes == [[0] * 20] * 4
    for each, one in zip(scaled, calls, strict=True):
        np.testing.assert_array_equal(one.output, each.expected(np.float32))


# The C contract


def test_sizes_and_version_are_those_of_the_spec(built: Builder, native: Native) -> None:
    spec = SPECS["pruned"]
    pieces = [54 * 8 * 4, 54 * 8 * 6, 216 * 6, 216 * 6]
    assert spec.tiles == 8
    assert native.space() == spec.workspace_bytes == sum(-(-4 * p // 64) * 64 for p in pieces)
    assert native.version() == 1
    assert spec.weight_offsets == (0, 54 * 4 * 6 * 4, 54 * 4 * 6 * 4 + 64)


@pytest.mark.parametrize("which", range(4))
def test_null_pointers_are_refused(native: Native, which: int) -> None:
    addresses = [None if i == which else a for i, a in enumerate(native.addresses)]
    assert native.run(*addresses) == 1
    assert np.isnan(native.output).all(), "a refused call writes nothing"


@pytest.mark.parametrize("which", [2, 3])
@pytest.mark.parametrize("shift", [4, 32])
def test_misaligned_buffers_are_refused(native: Native, which: int, shift: int) -> None:
    addresses = [a + shift * (i == which) for i, a in enumerate(native.addresses)]
    assert native.run(*addresses) == 2
    assert np.isnan(native.output).all()
    assert native.run(None, *addresses[1:]) == 1, "a null pointer is reported first"


@pytest.mark.parametrize("which", [0, 1])
def test_activations_need_the_alignment_of_a_float_only(built: Builder, native: Native, which: int) -> None:
    moved = native.buffers[which]
    moved[4:] = moved[:-4].copy()
    addresses = [a + 4 * (i == which) for i, a in enumerate(native.addresses)]
    assert native.run(*addresses) == 0
    at = 4 * (which == 1)
    y = native.buffers[1][at : at + native.sizes[1]].view(np.float32).reshape(native.shape)
    np.testing.assert_array_equal(y, built.cases["pruned"].expected(np.float32))


STATUS_PROGRAM = """
#include "lrw_pruned.h"
static _Alignas(64) char weights[LRW_pruned_WEIGHTS_BYTES + 64], workspace[LRW_pruned_WORKSPACE_BYTES + 64];
static float input[LRW_pruned_INPUT_FLOATS], output[LRW_pruned_OUTPUT_FLOATS];
int main(void) {
  int wrong = lrw_pruned_run(input, output, weights, workspace) != LRW_OK;
  wrong += lrw_pruned_run(0, output, weights, workspace) != LRW_NULL_POINTER;
  wrong += lrw_pruned_run(input, 0, weights, workspace) != LRW_NULL_POINTER;
  wrong += lrw_pruned_run(input, output, 0, workspace) != LRW_NULL_POINTER;
  wrong += lrw_pruned_run(input, output, weights, 0) != LRW_NULL_POINTER;
  wrong += lrw_pruned_run(input, output, weights + 4, workspace) != LRW_MISALIGNED_POINTER;
  wrong += lrw_pruned_run(input, output, weights, workspace + 32) != LRW_MISALIGNED_POINTER;
  return wrong;
}
"""


def test_status_codes_on_arm(built: Builder, tmp_path: Path) -> None:
    need(target=ARM)
    made = built("pruned", ARM)
    (tmp_path / "main.c").write_text(STATUS_PROGRAM)
    options = ["-std=c11", "-Wall", "-Werror", "-static", f"-I{made.header.parent}", "-o", "main"]
    call("aarch64-linux-gnu-gcc", *options, "main.c", made.object, cwd=tmp_path)
    call("qemu-aarch64", "-cpu", "cortex-a53", "./main", cwd=tmp_path)
    assert (tmp_path / "main").is_file()


@pytest.mark.parametrize("target", [NATIVE, ARM, ANDROID])
def test_library_offers_three_symbols_and_needs_nothing(built: Builder, target: str) -> None:
    made = built("pruned", target)
    expected = frozenset({"lrw_abi_version", "lrw_pruned_workspace_bytes", "lrw_pruned_run"})
    code = read_elf(made.object.read_bytes())
    assert (code.exported, code.undefined, code.needed) == (expected, frozenset(), ())
    need("readelf", *([] if target == NATIVE else ["aarch64-linux-gnu-ld"]))
    symbols = [line.split() for line in call("readelf", "--dyn-syms", "-W", made.library).splitlines()]
    assert {row[7] for row in symbols if len(row) == 8 and row[0][:-1].isdigit()} == expected
    dynamic = call("readelf", "-dW", made.library)
    assert "NEEDED" not in dynamic
    assert "[liblrw_pruned.so]" in dynamic
    segments = [line.split() for line in call("readelf", "-lW", made.library).splitlines()]
    assert {row[-1] for row in segments if row[:1] == ["LOAD"]} == {"0x4000"}
    assert all("E" not in row[6] for row in segments if row[:1] == ["GNU_STACK"])


def test_objects_of_two_layers_link_together(built: Builder, tmp_path: Path) -> None:
    need(target=NATIVE)
    both = [built(name, NATIVE).object for name in ("pruned", "dense")]
    library = tmp_path / "both.so"
    call("gcc", "-shared", "-nostdlib", "-Wl,--no-undefined", "-o", library, *both)
    assert read_elf(library.read_bytes()).exported >= {"lrw_abi_version", "lrw_pruned_run", "lrw_dense_run"}


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c99"), ("g++", "c++11"), ("aarch64-linux-gnu-gcc", "c99")])
def test_headers_compile(built: Builder, tmp_path: Path, compiler: str, standard: str) -> None:
    need(compiler)
    lines = [f'#include "lrw_{name}.h"' for name in ("pruned", "dense", "pruned")]
    sizes = {"INPUT_FLOATS": 2048, "INPUT_BYTES": 8192, "OUTPUT_FLOATS": 3072, "OUTPUT_BYTES": 12288}
    sizes |= {"WEIGHTS_BYTES": 5248, "WEIGHTS_FLOATS": 1312}
    sizes |= {"WORKSPACE_BYTES": SPECS["pruned"].workspace_bytes}
    # An array of negative size is how C99 says static_assert.
    lines += [f"extern char {what}[LRW_pruned_{what} == {size} ? 1 : -1];" for what, size in sizes.items()]
    lines += ["int (*f[2])(const float *, float *, const void *, void *) = {lrw_pruned_run, lrw_dense_run};"]
    source = tmp_path / ("main.cc" if "++" in standard else "main.c")
    source.write_text("\n".join(lines) + "\n")
    include = {built(name, ARM).header.parent for name in ("pruned", "dense")}.pop()
    warnings = ("-Wall", "-Wextra", "-Werror", "-pedantic")
    call(compiler, f"-std={standard}", *warnings, f"-I{include}", "-c", source, "-o", tmp_path / "main.o")
    assert "lrw_pruned_run" in (tmp_path / "main.o").read_bytes().decode("latin1")


# Lowering


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


# Files


@pytest.fixture
def quick(built: Builder, monkeypatch: pytest.MonkeyPatch) -> Case:
    """The dense layer, lowered already: what follows is about files."""
    code = built("dense", ARM).object.read_bytes()
    monkeypatch.setattr(build, "lower_layer", lambda spec, target: code)
    return built.cases["dense"]


def test_manifest_describes_the_files(quick: Case, tmp_path: Path) -> None:
    made = build_layer(quick.spec, quick.u, quick.bias, tmp_path / "new" / "folder")
    manifest = json.loads(made.manifest.read_text())
    assert LayerSpec.from_dict(manifest["spec"]) == quick.spec
    assert (manifest["abi_version"], manifest["target"]) == (1, ARM)
    blob = made.weights.read_bytes()
    assert manifest["weights"] == {"sha256": hashlib.sha256(blob).hexdigest(), "bytes": len(blob)}
    assert manifest["workspace_bytes"] == quick.spec.workspace_bytes
    assert set(manifest["versions"]) == {"numba", "llvmlite"}
    assert sorted(manifest["files"].values()) == sorted(path.name for path in made.manifest.parent.iterdir())
    np.testing.assert_array_equal(np.frombuffer(blob, np.float32)[: quick.u.size], quick.u.ravel())


def test_without_a_linker_there_is_no_library_and_a_reason(
    quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "liblrw_dense.so").write_text("of an earlier build")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    made = build_layer(quick.spec, quick.u, None, tmp_path)
    assert made.library is None
    assert "aarch64-linux-gnu-gcc" in made.note
    assert not (tmp_path / "liblrw_dense.so").exists(), "a library of another build would be worse than none"
    assert "library" not in json.loads(made.manifest.read_text())["files"]
    with pytest.raises(RuntimeError, match="no linker"):
        run_layer(made, quick.x)


def test_a_plain_linker_is_enough(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("aarch64-linux-gnu-ld")
    (tmp_path / "aarch64-linux-gnu-ld").symlink_to(str(shutil.which("aarch64-linux-gnu-ld")))
    monkeypatch.setenv("PATH", str(tmp_path))
    made = built("dense", ARM)
    library, note = link_shared(made.object, tmp_path / "x.so", made.spec, find_target(ARM))
    assert (library, note) == (tmp_path / "x.so", "linked by aarch64-linux-gnu-ld")
    assert read_elf((tmp_path / "x.so").read_bytes()).exported == read_elf(made.object.read_bytes()).exported


def only_a_broken(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave on PATH nothing but a `program` that fails."""
    folder.mkdir()
    (folder / program).write_text("#!/bin/sh\necho disk full >&2\nexit 1\n")
    (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_a_failed_build_changes_nothing(quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    build_layer(quick.spec, quick.u, None, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    only_a_broken("aarch64-linux-gnu-gcc", tmp_path / "bin", monkeypatch)
    with pytest.raises(RuntimeError, match=r"(?s)linking liblrw_dense\.so .*disk full"):
        build_layer(quick.spec, quick.u * 2, None, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_clang_that_cannot_link_is_no_linker(quick: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only_a_broken("clang", tmp_path / "bin", monkeypatch)
    made = build_layer(quick.spec, quick.u, None, tmp_path / "out")
    assert made.library is None
    assert made.note.startswith("no linker for aarch64-linux-gnu")
    assert made.note.endswith("disk full")


def test_run_names_the_missing_tool(built: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = replace(built("dense", ARM), library=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert {"qemu-aarch64", "aarch64-linux-gnu-gcc"} <= set(missing_tools(ARM))
    with pytest.raises(RuntimeError, match="qemu-aarch64"):
        run_layer(made, built.cases["dense"].x)
    with pytest.raises(ValueError, match=r"x: float64 .*float32 \[1, 5, 6, 7, 8\]"):
        run_layer(made, built.cases["dense"].x.astype(np.float64))


# Input that is refused


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_spec_survives_json(spec: LayerSpec) -> None:
    assert LayerSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "2d"}, "name: '2d'; accepted are C identifiers"),
        ({"name": "größe"}, "name: "),
        ({"name": "a\n"}, "name: "),
        ({"tile": "F(2x2x2,3x3x3)"}, r"tile: .* is not a Tile"),
        ({"padding": (0, -1, 0)}, "padding: -1; accepted are integers from 0"),
        ({"padding": 1}, "padding: 1; accepted are three"),
        ({"input_size": (4, 4, 0)}, "input_size: 0; accepted are integers from 1"),
        ({"input_size": (1, 4, 4), "padding": (0, 0, 0)}, r"input_size: .* smaller than the filter"),
        ({"cin": 2.5}, "cin: 2.5"),
        ({"cout": True}, "cout: True"),
        ({"batch": 0}, "batch: 0"),
        ({"batch": 2**45}, "spec: a buffer of"),
        ({"kept": (3, 1)}, "kept: positions must rise"),
        ({"kept": (64,)}, "kept: position 64 outside"),
        ({"bias": 1}, "bias: 1; accepted are True and False"),
    ],
)
def test_spec_refuses(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(BASE, **change)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "spec: not JSON"),
        ("[]", "spec: a JSON list"),
        (json.dumps({**BASE.to_dict(), "stride": 2}), "spec: unknown field 'stride'"),
        (json.dumps({k: v for k, v in BASE.to_dict().items() if k != "cin"}), "spec: missing field 'cin'"),
        (json.dumps({**BASE.to_dict(), "tile": 2}), "tile: 2"),
    ],
)
def test_json_refuses(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        LayerSpec.from_json(text)


U, BIAS = np.zeros(BASE.weight_shape, np.float32), np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("u", "bias", "message"),
    [
        (U[1:], BIAS, r"u: shape \[63, 2, 3\]; accepted is \[64, 2, 3\]"),
        (U.astype(np.float64), BIAS, "u: float64; accepted is a float32 array"),
        (U.tolist(), BIAS, "u: list"),
        (U + np.float32(np.inf), BIAS, "u: has values that are not finite"),
        (U, None, "bias: missing"),
        (U, BIAS[:2], r"bias: shape \[2\]"),
        (U, BIAS * np.float32(np.nan), "bias: has values that are not finite"),
    ],
)
def test_build_refuses_arrays_and_writes_nothing(tmp_path: Path, u: Any, bias: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        build_layer(BASE, u, bias, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_bias_that_the_layer_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^bias: given; the layer says bias=False"):
        pack_weights(replace(BASE, bias=False), U, BIAS)


@pytest.mark.parametrize("function", [lower_layer, lambda spec, target: missing_tools(target)])
def test_unknown_target_lists_the_known(function: Any) -> None:
    message = f"target: 'mips' is not known; accepted are {', '.join(TARGETS)}"
    with pytest.raises(ValueError, match=re.escape(message)):
        function(BASE, "mips")
