"""The C side of exported layers: sizes, status codes, alignment, symbols, linking and headers."""

from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aarch64.elf import read_elf
from verify.unit.exported_layers import ANDROID, ARM, NATIVE, SPECS, Builder, Native, call, need


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
