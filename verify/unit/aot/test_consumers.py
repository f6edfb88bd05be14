"""What others do with an exported network's files: compile against its header, build the example, read its symbols."""

import hashlib
import os
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aot.abi import FUNCTIONS, Status
from lrw_kernels.aot.example import THREADS_HEADER, sources
from lrw_kernels.aot.header import header_text
from lrw_kernels.aot.manifest import Artifacts
from lrw_kernels.aot.ports import Ports
from lrw_kernels.aot.targets import find_target
from lrw_kernels.aot.weighed import DIGEST_AT
from lrw_kernels.codegen.elf import read_elf
from lrw_kernels.program.assemble import assemble
from verify.programs.exported import ANDROID, ARM, NATIVE, TINY, Builder, call, case, need

pytestmark = pytest.mark.slow

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-pedantic")
WRONG_FILE = 13  # the example's own, for weights of another size
SIX = {"lrw_abi_version", *(f"lrw_tiny_{function}" for function in FUNCTIONS)}


@pytest.mark.parametrize(("compiler", "standard"), [("gcc", "c99"), ("g++", "c++11"), ("aarch64-linux-gnu-gcc", "c99")])
def test_headers_of_two_networks_compile_in_one_file(
    built: Builder, tmp_path: Path, compiler: str, standard: str
) -> None:
    need(compiler)
    folders = [built(name, ARM).header.parent for name in ("tiny", "every")]
    lines = [f'#include "lrw_{name}.h"' for name in ("tiny", "every", "tiny")]
    lines += ['#include "lrw_threads.h"']
    sizes = {"INPUT_FLOATS": 12, "INPUT_BYTES": 48, "OUTPUT_FLOATS": 18, "OUTPUT_BYTES": 72, "THREADS": 4, "STEPS": 1}
    sizes |= {"WORKSPACE_BYTES": built("tiny", ARM).workspace_bytes}
    sizes |= {"WEIGHTS_BYTES": built("tiny", ARM).weights.stat().st_size}
    # An array of negative size is how C99 says static_assert.
    lines += [f"extern char {what}[LRW_tiny_{what} == {size} ? 1 : -1];" for what, size in sizes.items()]
    lines += ["extern char status[LRW_BAD_THREADS == 6 && LRW_OK == 0 && LRW_ALIGNMENT == 64 ? 1 : -1];"]
    run = "const float *, float *, const void *, void *, const struct lrw_threads *"
    lines += [f"extern int (*runs[2])({run}); int (*runs[2])({run}) = {{lrw_tiny_run, lrw_every_run}};"]
    source = tmp_path / ("main.cc" if "++" in standard else "main.c")
    source.write_text("\n".join(lines) + "\n")
    call(compiler, f"-std={standard}", *WARNINGS, *[f"-I{f}" for f in folders], "-c", source, "-o", tmp_path / "main.o")
    assert b"lrw_tiny_run" in (tmp_path / "main.o").read_bytes()


@pytest.mark.parametrize("name", ["COMMON", "common", "NETWORK", "THREADS_H", "ABI", "lrw"])
def test_a_networks_name_hides_no_declaration(name: str, tmp_path: Path) -> None:
    need("gcc")
    for one in (name, "other"):
        network = replace(TINY, name=one)
        program = assemble(network, find_target(ARM).machine)
        (tmp_path / f"lrw_{one}.h").write_text(header_text(program, Ports.of(network), find_target(ARM)))
    (tmp_path / "lrw_threads.h").write_text(THREADS_HEADER)
    lines = [f'#include "lrw_{header}.h"' for header in ("threads", name, "other")]
    lines += ["struct lrw_threads threads = {1, 0, 0};", "int started(void) { return lrw_threads_start(&threads, 1); }"]
    lines += [f"int (*run)(const float *, float *, const void *, void *, const struct lrw_threads *) = lrw_{name}_run;"]
    lines += ["int codes[2] = {LRW_OK, LRW_BAD_THREADS};"]
    (tmp_path / "main.c").write_text("\n".join(lines) + "\n")
    call("gcc", "-std=c99", *WARNINGS, "-c", "main.c", "-o", "main.o", cwd=tmp_path)
    assert b"lrw_threads_start" in (tmp_path / "main.o").read_bytes()


@pytest.mark.parametrize(("compiler", "target"), [("gcc", NATIVE), ("aarch64-linux-gnu-gcc", ARM)])
@pytest.mark.parametrize("source", ["main.c", "lrw_threads.c"])
def test_generated_sources_compile_without_a_warning(
    built: Builder, tmp_path: Path, compiler: str, target: str, source: str
) -> None:
    need(compiler)
    folder = built("every", target).manifest.parent
    product = tmp_path / "product.o"
    call(compiler, "-std=c99", "-O2", *WARNINGS, "-Wshadow", "-Wconversion", "-c", folder / source, "-o", product)
    assert product.stat().st_size > 0


LIMITED = """
#include <errno.h>
#include <limits.h>
#include <sys/resource.h>
#include "lrw_tiny.h"
#include "lrw_threads.h"
int main(void) {
  struct rlimit little = {1 << 28, 1 << 28};
  struct lrw_threads threads;
  int wrong = lrw_threads_start(&threads, 0) != EINVAL;
  wrong += lrw_threads_start(&threads, INT_MIN) != EINVAL;
  wrong += setrlimit(RLIMIT_AS, &little) != 0;
  wrong += lrw_threads_start(&threads, INT_MAX) != ENOMEM;
  wrong += lrw_threads_start(&threads, 1) != 0;
  lrw_threads_stop(&threads);
  return wrong;
}
"""


def test_threads_that_cannot_be_started_give_an_error_number(tmp_path: Path) -> None:
    need("gcc")
    program = assemble(TINY, find_target(NATIVE).machine)
    (tmp_path / "lrw_tiny.h").write_text(header_text(program, Ports.of(TINY), find_target(NATIVE)))
    for file, text in (sources("tiny", Ports.of(TINY), "none") | {"main.c": LIMITED}).items():
        (tmp_path / file).write_text(text)
    call("gcc", *WARNINGS, "main.c", "lrw_threads.c", "-o", "limited", "-pthread", cwd=tmp_path)
    assert call(tmp_path / "limited") == ""


def run_program(program: Path, made: Artifacts, folder: Path, threads: int) -> bytes:
    """What the example writes; it must say nothing."""
    (folder / "input").write_bytes(case(made.name).x.tobytes())
    command = [str(program), str(made.weights), "input", "output", str(threads)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return (folder / "output").read_bytes()


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("threads", [1, 4])
def test_the_example_runs_clean_under_sanitizers(built: Builder, tmp_path: Path, sanitizer: str, threads: int) -> None:
    need(target=NATIVE)
    made = built("every", NATIVE)
    program = sanitized(made, tmp_path, sanitizer)
    prefix = ["setarch", "-R"] if sanitizer == "thread" else []  # its shadow memory has no place for random addresses
    if prefix:
        need("setarch")
        wrapper = tmp_path / "wrapper"
        wrapper.write_text(f'#!/bin/sh\nexec {" ".join(prefix)} {program} "$@"\n')
        wrapper.chmod(0o755)
        program = wrapper
    y = np.frombuffer(run_program(program, made, tmp_path, threads), np.float32).reshape(made.outputs[0].size)
    ((exact, tolerance),) = case("every").expected
    assert (np.abs(y - exact) <= tolerance).all()


def sanitized(made: Artifacts, folder: Path, sanitizer: str) -> Path:
    """The example, built with that sanitizer, which ends it at the first finding."""
    sources, program = made.manifest.parent, folder / "program"
    options = ["-std=c99", "-g", "-O1", f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-o", program]
    call("gcc", *options, sources / "main.c", sources / "lrw_threads.c", made.static, "-pthread")
    return program


def test_spoilt_weights_are_refused_under_sanitizers(built: Builder, tmp_path: Path) -> None:
    """Bytes changed, files cut off or longer, and other numbers under a checksum that is theirs."""
    need(target=NATIVE)
    made, rng = built("tiny", NATIVE), np.random.default_rng(0)
    program = sanitized(made, tmp_path, "address,undefined")
    (tmp_path / "input").write_bytes(case(made.name).x.tobytes())
    weights = made.weights.read_bytes()
    no_leaks = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # where it refuses it ends, and its memory with it
    counts = Counter[int]()
    for spoil in range(90):
        blob = bytearray(weights)
        if spoil % 3 == 0:
            blob = blob[: rng.integers(len(blob))] + rng.bytes(rng.integers(200))
        for at in rng.integers(0, len(blob), rng.integers(1, 9)) if len(blob) else ():
            blob[at] = rng.integers(256)
        if spoil % 3 == 1 and len(blob) == len(weights):
            blob[:DIGEST_AT], body = weights[:DIGEST_AT], rng.bytes(len(blob) - 64)
            blob[DIGEST_AT:] = hashlib.sha256(body).digest() + bytes(64 - DIGEST_AT - 32) + body
        (tmp_path / "spoilt").write_bytes(blob)
        command = [str(program), "spoilt", "input", "output", "2"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=no_leaks)
        assert "Sanitizer" not in done.stderr, done.stderr
        counts[done.returncode] += 1
    assert set(counts) == {Status.WRONG_WEIGHTS, Status.DAMAGED_WEIGHTS, WRONG_FILE}
    assert counts[Status.WRONG_WEIGHTS] >= 30  # the library knows the checksum of its own


def test_the_cmake_project_builds_and_runs(built: Builder, tmp_path: Path) -> None:
    need("cmake", target=NATIVE)
    made = built("tiny", NATIVE)
    call("cmake", "-S", made.manifest.parent, "-B", tmp_path / "build", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror")
    call("cmake", "--build", tmp_path / "build")
    y = run_program(tmp_path / "build" / "tiny_example", made, tmp_path, 2)
    ((exact, _),) = case("tiny").expected
    np.testing.assert_allclose(np.frombuffer(y, np.float32).reshape(exact.shape), exact, rtol=1e-6)


@pytest.mark.parametrize("target", [NATIVE, ARM, ANDROID])
def test_libraries_offer_six_functions_and_need_nothing(built: Builder, tmp_path: Path, target: str) -> None:
    need("readelf", "ar", "nm", *(["gcc"] if target == NATIVE else ["aarch64-linux-gnu-gcc"]))
    made = built("tiny", target)
    assert made.shared is not None
    call("ar", "x", made.static, cwd=tmp_path)
    code = read_elf((tmp_path / "network.o").read_bytes())
    assert (code.exported, code.undefined, code.needed) == (SIX, frozenset(), ())
    symbols = [line.split() for line in call("readelf", "--dyn-syms", "-W", made.shared).splitlines()]
    assert {row[7] for row in symbols if len(row) == 8 and row[4] in ("GLOBAL", "WEAK")} == SIX
    dynamic = call("readelf", "-dW", made.shared)
    assert "NEEDED" not in dynamic
    assert "TEXTREL" not in dynamic
    assert "[liblrw_tiny.so]" in dynamic
    segments = [line.split() for line in call("readelf", "-lW", made.shared).splitlines()]
    assert {row[-1] for row in segments if row[:1] == ["LOAD"]} == {"0x4000"}
    assert [row[6] for row in segments if row[:1] == ["GNU_STACK"]] == ["RW"]


def test_binutils_read_the_archive(built: Builder, tmp_path: Path) -> None:
    need("ar", "nm", target=NATIVE)
    made = built("every", NATIVE)
    assert call("ar", "t", made.static) == "network.o\n"
    index = call("nm", "-s", made.static).split("\n\n")[0]
    expected = {"lrw_abi_version", *(f"lrw_every_{function}" for function in FUNCTIONS)}
    assert {line.split()[0] for line in index.splitlines() if " in network.o" in line} == expected
    before = made.static.read_bytes()
    copy = tmp_path / "copy.a"
    copy.write_bytes(before)
    call("ranlib", "-D", copy)
    call("ar", "x", copy, cwd=tmp_path)
    assert (tmp_path / "network.o").read_bytes() in before


def test_two_networks_link_into_one_program(built: Builder, tmp_path: Path) -> None:
    need(target=NATIVE)
    made = [built(name, NATIVE) for name in ("tiny", "every")]
    text = "".join(f'#include "lrw_{one.name}.h"\n' for one in made)
    text += "int main(void) { return lrw_abi_version() != LRW_ABI_VERSION"
    text += "".join(f" || lrw_{a.name}_workspace_bytes() != LRW_{a.name}_WORKSPACE_BYTES" for a in made) + "; }\n"
    (tmp_path / "main.c").write_text(text)
    folders = [f"-I{one.header.parent}" for one in made]
    call("gcc", *WARNINGS, *folders, "main.c", *(one.static for one in made), "-o", "both", cwd=tmp_path)
    assert call(tmp_path / "both") == ""


def test_arm_code_is_that_of_the_oldest_core_and_cannot_trap(built: Builder, tmp_path: Path) -> None:
    need("ar", "aarch64-linux-gnu-objdump", target=ARM)
    call("ar", "x", built("c3d", ARM).static, cwd=tmp_path)
    listing = call("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", tmp_path / "network.o")
    mnemonics = [row[1].split()[0] for row in (line.split("\t") for line in listing.splitlines()) if len(row) > 1]
    assert mnemonics.count("fmla") > 100
    assert not {"svc", "udf", "brk", "smmla", "sdot", "ldapr", "cas", "ldadd", "ldaddal"} & set(mnemonics)
