"""The C functions of a network: status codes, what a call reads and writes, threads."""

import ctypes
import hashlib
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.aot.abi import ABI_VERSION, Status
from lrw_kernels.aot.emulate import build_example
from lrw_kernels.aot.weighed import DIGEST_AT
from verify.programs.exported import (
    ARM,
    GUARD_BYTES,
    HERE,
    NATIVE,
    START,
    THREADS,
    Builder,
    Fenced,
    Native,
    Threads,
    call,
    case,
    need,
)

pytestmark = pytest.mark.slow


def assert_refused(native: Native, addresses: list[int | None], status: Status, threads: Threads | None = None) -> None:
    before = [buffer.copy() for buffer in native.buffers]
    assert native.run(*addresses, ctypes.byref(threads) if threads else None) == status
    if threads is None:
        assert native.begin(*addresses) == status
    for buffer, was in zip(native.buffers, before, strict=True):
        np.testing.assert_array_equal(buffer, was)


def test_sizes_and_version_are_those_of_the_manifest(built: Builder, native: Native) -> None:
    assert native.version() == ABI_VERSION
    assert native.space() == built("every", NATIVE).workspace_bytes


@pytest.mark.parametrize("which", range(4))
def test_null_pointers_are_refused(native: Native, which: int) -> None:
    assert_refused(native, [None if i == which else a for i, a in enumerate(native.addresses)], Status.NULL_POINTER)


@pytest.mark.parametrize(("which", "shift"), [(0, 2), (1, 1), (2, 4), (2, 32), (3, 4), (3, 32)])
def test_misaligned_buffers_are_refused(native: Native, which: int, shift: int) -> None:
    addresses = [a + shift * (i == which) for i, a in enumerate(native.addresses)]
    assert_refused(native, list(addresses), Status.MISALIGNED_POINTER)
    assert_refused(native, [None, *addresses[1:]], Status.NULL_POINTER)


def test_activations_need_the_alignment_of_a_float_only(native: Native) -> None:
    assert native.run(*native.addresses, None) == Status.OK
    expected = native.output.copy()
    native.buffers[0][4:] = native.buffers[0][:-4].copy()
    native.forget()
    first, second, *others = native.addresses
    assert native.run(first + 4, second + 4, *others, None) == Status.OK
    y = native.buffers[1][4 : 4 + native.sizes[1]].view(np.float32).reshape(native.shapes[0])
    np.testing.assert_array_equal(y, expected)


def test_the_header_of_the_weights_has_their_checksum(native: Native) -> None:
    blob = native.buffers[2][: native.sizes[2]].tobytes()
    assert blob[:8] == b"lrw-wgts"
    assert blob[8:24] == ABI_VERSION.to_bytes(8, "little") + len(blob).to_bytes(8, "little")
    assert blob[DIGEST_AT:64] == hashlib.sha256(blob[64:]).digest() + bytes(8)


@pytest.mark.parametrize("at", [0, 8, 16, 23, 24, 55, 63])
def test_weights_of_another_network_are_refused(native: Native, at: int) -> None:
    native.buffers[2][at] ^= 0x10
    assert native.check(native.addresses[2], native.sizes[2]) == Status.WRONG_WEIGHTS
    assert_refused(native, list(native.addresses), Status.WRONG_WEIGHTS)


def test_check_weights_says_what_is_wrong(native: Native) -> None:
    at, size = native.addresses[2], native.sizes[2]
    assert native.check(at, size) == native.check(at, size + GUARD_BYTES) == Status.OK
    assert native.check(None, size) == Status.NULL_POINTER
    assert native.check(at + 4, size) == Status.MISALIGNED_POINTER
    for short in (0, 63, 64, size - 1):
        assert native.check(at, short) == Status.SHORT_WEIGHTS
    for place in (64, size // 2, size - 1):
        native.buffers[2][place] ^= 1
        assert native.check(at, size) == Status.DAMAGED_WEIGHTS
        native.buffers[2][place] ^= 1
    assert native.check(at, size) == Status.OK


@pytest.mark.parametrize("count", [-(2**31), -1, 0, THREADS + 1, 2**31 - 1])
def test_numbers_of_threads_outside_what_the_workspace_is_for_are_refused(native: Native, count: int) -> None:
    never = START(lambda *_: pytest.fail("started"))
    assert_refused(native, list(native.addresses), Status.BAD_THREADS, Threads(count, never, None))


@pytest.mark.parametrize("count", [1, THREADS])
def test_threads_without_a_function_to_start_them_are_refused(native: Native, count: int) -> None:
    assert_refused(native, list(native.addresses), Status.BAD_THREADS, Threads(count, START(), None))


@pytest.mark.parametrize("name", HERE)
def test_a_run_writes_outputs_and_workspace_and_no_further(built: Builder, name: str) -> None:
    need(target=NATIVE)
    native = Native(built(name, NATIVE), *case(name).inputs)
    before = [buffer.copy() for buffer in native.buffers]
    assert native.run(*native.addresses, None) == Status.OK
    assert all(np.isfinite(y).all() for y in native.outputs)
    for i in (*range(len(case(name).inputs)), -2):
        np.testing.assert_array_equal(native.buffers[i], before[i])
    for buffer, size in zip(native.buffers, native.sizes, strict=True):
        assert (buffer[size:] == 0xFF).all()


@pytest.mark.parametrize("name", HERE)
def test_buffers_may_end_where_memory_does(built: Builder, name: str) -> None:
    need(target=NATIVE)
    native = Native(built(name, NATIVE), *case(name).inputs)
    assert native.run(*native.addresses, None) == Status.OK
    inputs, alignments = len(case(name).inputs), (*[4] * native.outside, 64, 64)
    fenced = [Fenced(size, alignment) for size, alignment in zip(native.sizes, alignments, strict=True)]
    for i in (*range(inputs), -2):
        fenced[i].bytes[:] = native.buffers[i][: native.sizes[i]]
    assert native.check(fenced[-2].address, native.sizes[-2]) == Status.OK
    assert native.run(*(buffer.address for buffer in fenced), None) == Status.OK
    for buffer, y in zip(fenced[inputs : native.outside], native.outputs, strict=True):
        assert buffer.bytes.tobytes() == y.tobytes()
    for buffer in fenced:
        buffer.close()


def test_a_second_run_starts_afresh(native: Native) -> None:
    assert native.run(*native.addresses, None) == Status.OK
    first = native.output.copy()
    native.buffers[1][:] = 0xFF
    assert native.run(*native.addresses, None) == Status.OK
    np.testing.assert_array_equal(native.output, first)


def test_a_workspace_may_hold_anything(native: Native) -> None:
    assert native.run(*native.addresses, None) == Status.OK
    first = native.output.copy()
    native.forget()
    native.buffers[3][: native.sizes[3]] = np.random.default_rng(0).integers(0, 256, native.sizes[3], np.uint8)
    assert native.run(*native.addresses, None) == Status.OK
    np.testing.assert_array_equal(native.output, first)


def test_callers_with_their_own_workspaces_share_the_library(built: Builder) -> None:
    need(target=NATIVE)
    calls = [Native(built("every", NATIVE), case("every").x * np.float32(k)) for k in range(1, 5)]
    alone = []
    for each in calls:
        assert each.run(*each.addresses, None) == Status.OK
        alone.append(each.output.copy())
        each.forget()
    with ThreadPoolExecutor(4) as pool:
        codes = list(pool.map(lambda c: [c.run(*c.addresses, None) for _ in range(20)], calls))
    assert codes == [[Status.OK] * 20] * 4
    for each, expected in zip(calls, alone, strict=True):
        np.testing.assert_array_equal(each.output, expected)
    assert not np.array_equal(alone[0], alone[1])


def side_by_side(pool: ThreadPoolExecutor) -> Callable[..., None]:
    """A `start` that makes all calls on threads of Python's."""

    def start(context: int, count: int, task: Callable[[int], None], data: int) -> None:
        list(pool.map(task, [data] * count))

    return START(start)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("count", [1, 2, THREADS])
def test_threads_of_the_caller_give_the_bits_of_one(built: Builder, name: str, count: int) -> None:
    need(target=NATIVE)
    native = Native(built(name, NATIVE), *case(name).inputs)
    assert native.run(*native.addresses, None) == Status.OK
    one = [y.copy() for y in native.outputs]
    native.forget()
    with ThreadPoolExecutor(count) as pool:
        threads = Threads(count, side_by_side(pool), None)
        assert native.run(*native.addresses, ctypes.byref(threads)) == Status.OK
    for y, of in zip(native.outputs, one, strict=True):
        np.testing.assert_array_equal(y, of)
    assert (native.buffers[-1][native.sizes[-1] :] == 0xFF).all()


def test_start_gets_its_context_and_a_task_that_one_thread_may_do_alone(native: Native) -> None:
    assert native.run(*native.addresses, None) == Status.OK
    one = native.output.copy()
    native.forget()
    given = []

    def start(context: int, count: int, task: Callable[[int], None], data: int) -> None:
        given.append((context, count))
        for _ in range(count):
            task(data)

    assert native.run(*native.addresses, ctypes.byref(Threads(3, START(start), 4711))) == Status.OK
    assert set(given) == {(4711, 3)}
    np.testing.assert_array_equal(native.output, one)


def steps(native: Native, built: Builder) -> int:
    text = built("every", NATIVE).header.read_text()
    return int(text.split("#define LRW_every_STEPS ")[1].split()[0])


@pytest.mark.parametrize("callers", [1, 2, THREADS, 3 * THREADS])
def test_steps_on_any_number_of_threads_give_the_bits_of_a_run(built: Builder, native: Native, callers: int) -> None:
    assert native.run(*native.addresses, None) == Status.OK
    one = native.output.copy()
    native.forget()
    assert native.begin(*native.addresses) == Status.OK
    workspace = native.addresses[3]
    with ThreadPoolExecutor(callers) as pool:
        for step in range(steps(native, built)):
            list(pool.map(lambda _, s=step: native.step(workspace, s), range(callers)))
    np.testing.assert_array_equal(native.output, one)
    assert (native.buffers[3][native.sizes[3] :] == 0xFF).all(), "callers that find no scratch left do nothing"


def test_steps_that_do_not_exist_do_nothing(built: Builder, native: Native) -> None:
    assert native.begin(*native.addresses) == Status.OK
    before = native.buffers[3].copy()
    for step in (-1, steps(native, built), 2**31 - 1, -(2**31)):
        native.step(native.addresses[3], step)
    np.testing.assert_array_equal(native.buffers[3], before)
    assert np.isnan(native.output).all()


STATUS_PROGRAM = """
#include "lrw_every.h"
#include <stdio.h>
static _Alignas(64) char weights[LRW_every_WEIGHTS_BYTES + 64], workspace[LRW_every_WORKSPACE_BYTES + 64];
static float input[LRW_every_INPUT_FLOATS], output[LRW_every_OUTPUT_FLOATS];
static int run(void *w, void *s, struct lrw_threads *t) { return lrw_every_run(input, output, w, s, t); }
int main(int argc, char **argv) {
  struct lrw_threads threads = {LRW_every_THREADS + 1, 0, 0};
  FILE *file = argc == 2 ? fopen(argv[1], "rb") : 0;
  if (!file || fread(weights, 1, LRW_every_WEIGHTS_BYTES, file) != LRW_every_WEIGHTS_BYTES) return 99;
  int wrong = run(weights, workspace, 0) != LRW_OK;
  wrong += lrw_every_check_weights(weights, LRW_every_WEIGHTS_BYTES) != LRW_OK;
  wrong += lrw_every_check_weights(weights, LRW_every_WEIGHTS_BYTES - 1) != LRW_SHORT_WEIGHTS;
  wrong += lrw_every_run(0, output, weights, workspace, 0) != LRW_NULL_POINTER;
  wrong += lrw_every_run(input, 0, weights, workspace, 0) != LRW_NULL_POINTER;
  wrong += run(0, workspace, 0) != LRW_NULL_POINTER;
  wrong += run(weights, 0, 0) != LRW_NULL_POINTER;
  wrong += run(weights + 4, workspace, 0) != LRW_MISALIGNED_POINTER;
  wrong += run(weights, workspace + 32, 0) != LRW_MISALIGNED_POINTER;
  wrong += run(weights, workspace, &threads) != LRW_BAD_THREADS;
  weights[LRW_every_WEIGHTS_BYTES - 1] ^= 1;
  wrong += lrw_every_check_weights(weights, LRW_every_WEIGHTS_BYTES) != LRW_DAMAGED_WEIGHTS;
  weights[8] ^= 1;
  wrong += run(weights, workspace, 0) != LRW_WRONG_WEIGHTS;
  return wrong;
}
"""


def test_status_codes_on_arm(built: Builder, tmp_path: Path) -> None:
    need(target=ARM)
    made = built("every", ARM)
    (tmp_path / "main.c").write_text(STATUS_PROGRAM)
    options = ["-std=c11", "-Wall", "-Werror", "-static", f"-I{made.header.parent}", "-o", "main"]
    call("aarch64-linux-gnu-gcc", *options, "main.c", made.static, cwd=tmp_path)
    assert call("qemu-aarch64", "-cpu", "cortex-a53", "./main", made.weights, cwd=tmp_path) == ""


def test_the_example_leaves_with_the_status(built: Builder, tmp_path: Path) -> None:
    need(target=NATIVE)
    made = built("tiny", NATIVE)
    program = build_example(made, tmp_path)
    (tmp_path / "input").write_bytes(case("tiny").x.tobytes())
    blob = bytearray(made.weights.read_bytes())
    (tmp_path / "short").write_bytes(blob[:-1])
    (tmp_path / "long").write_bytes(blob + b"\0")
    blob[-1] ^= 1
    (tmp_path / "damaged").write_bytes(blob)

    def status(*arguments: object) -> int:
        return subprocess.run([str(program), *map(str, arguments)], cwd=tmp_path, check=False).returncode

    assert status(made.weights, "input", "output") == 0
    assert status("damaged", "input", "none") == Status.DAMAGED_WEIGHTS
    assert status(made.weights, "input", "none", THREADS + 1) == Status.BAD_THREADS
    assert [status("short", "input", "none"), status("long", "input", "none")] == [13, 13]
    assert [status(made.weights, "no such file", "none"), status(made.weights, "long", "none"), status()] == [
        14,
        14,
        11,
    ]
    assert not (tmp_path / "none").exists()
