"""What the system notes of writes to memory: every way to write is seen, and what cannot be is not watched."""

import ctypes
import mmap
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lrw_kernels.codegen import written
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.written import LEAST, PAGE, watched

noted = pytest.mark.skipif(not written.supported(), reason="this system notes no writes: Linux does from 6.7 on")
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]


@pytest.fixture
def memory() -> Bytes:
    """Memory of this process, all of it written once."""
    owner = Memory.of(4 * LEAST)
    values = owner.view(4 * LEAST)
    values[:] = 1
    return values


def place(values: Bytes) -> range:
    start = values.__array_interface__["data"][0]
    return range(start, start + values.size)


def by_numpy(values: Bytes) -> None:
    values[LEAST + 5] = 2


def by_the_c_library(values: Bytes) -> None:
    ctypes.memset(place(values).start + 2 * LEAST, 3, 1)


def by_a_system_call(values: Bytes) -> None:
    with Path("/dev/zero").open("rb", buffering=0) as zeros:
        zeros.readinto(memoryview(values)[LEAST : LEAST + 9])


def by_another_thread(values: Bytes) -> None:
    thread = threading.Thread(target=by_numpy, args=(values,))
    thread.start()
    thread.join()


def with_the_same_numbers(values: Bytes) -> None:
    values[:1] = 1


def by_giving_it_back(values: Bytes) -> None:
    """The page holds zeros from then on, and nobody wrote."""
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.madvise(place(values).start + LEAST, PAGE, mmap.MADV_DONTNEED) == 0


WAYS = (
    by_numpy, by_the_c_library, by_a_system_call, by_another_thread, with_the_same_numbers, by_giving_it_back,
)  # fmt: skip


@noted
@pytest.mark.parametrize("write", WAYS)
def test_every_write_is_noted_until_memory_is_protected_again(write: Callable[[Bytes], None], memory: Bytes) -> None:
    of = watched([place(memory)])
    assert of.ranges == ((place(memory).start, place(memory).stop),)
    since = of.protect()
    assert not of.written(since)
    assert not of.written(since), "asking changes nothing"
    write(memory)
    assert of.written(since)
    assert of.written(since)
    if write is not by_giving_it_back:
        again = of.protect()
        assert not of.written(again)
        assert of.written(since), "others may have read before that"


@noted
def test_who_protects_does_not_take_the_notes_of_others(memory: Bytes) -> None:
    one, other = watched([place(memory)]), watched([place(memory)])
    since = one.protect()
    by_numpy(memory)
    other.protect()
    assert one.written(since)


@noted
def test_whole_pages_inside_are_watched_and_no_few_nor_those_of_others(memory: Bytes) -> None:
    start = place(memory).start
    of = watched([range(start + 5, start + 2 * LEAST + 9)])
    assert of.ranges == ((start + PAGE, start + 2 * LEAST),)
    assert watched([range(start, start + LEAST)]).ranges == (), "shares a page with those"
    del of
    overlapping, few = range(start + LEAST, start + 3 * LEAST), range(start + 3 * LEAST, start + 4 * LEAST - PAGE)
    assert watched([overlapping, few]).ranges == ((overlapping.start, overlapping.stop),)


@noted
def test_memory_of_files_and_of_several_processes_is_not_watched(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(2 * LEAST))
    shared = mmap.mmap(-1, 2 * LEAST)
    with path.open("r+b") as file:
        private = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE)
    for owner in (shared, private):
        owner[:] = bytes([1]) * (2 * LEAST)
        assert watched([place(np.frombuffer(owner, np.uint8))]).ranges == ()


@noted
def test_a_child_knows_nothing_and_leaves_its_parents_notes(memory: Bytes) -> None:
    of = watched([place(memory)])
    since = of.protect()
    child = os.fork()
    if child == 0:
        of.protect()
        os._exit(0 if of.written(since) and not written.supported() and not watched([place(memory)]).ranges else 1)
    assert os.waitpid(child, 0)[1] == 0
    again = of.protect()  # the system may count pages as written that both had
    assert not of.written(again)
    by_numpy(memory)
    assert of.written(again)


def test_where_the_system_notes_nothing_nothing_is_watched(monkeypatch: pytest.MonkeyPatch, memory: Bytes) -> None:
    before = watched([place(memory)])
    since = before.protect()
    monkeypatch.setattr(written, "_descriptors", lambda: None)
    assert not written.supported()
    assert watched([place(memory)]).ranges == ()
    assert before.written(since) == bool(before.ranges), "what was watched counts as written"
