"""Scratch memory: lent out once, reused, bounded."""

import ctypes
import gc

from lrw_kernels.codegen.arena import HUGE, MOST_FREE, Arena


def test_what_comes_back_is_lent_again() -> None:
    arena = Arena()
    first, second = arena.take(5 * HUGE), arena.take(5 * HUGE)
    assert first.address != second.address
    assert first.address % HUGE == 0
    arena.give_back(first)
    assert arena.held == 5 * HUGE
    assert arena.take(5 * HUGE - 7) is first
    arena.give_back(second)
    assert arena.take(3 * HUGE) is second, "a little more than is needed will do"
    assert arena.held == 0


def test_much_too_large_a_buffer_is_not_lent() -> None:
    arena = Arena()
    arena.give_back(arena.take(5 * HUGE))
    assert arena.take(2 * HUGE).size == 2 * HUGE
    assert arena.take(0).size == HUGE


def test_buffers_go_back_with_their_last_reference() -> None:
    arena = Arena()
    buffer = arena.buffer(3 * HUGE)
    buffer[3 * HUGE - 1] = b"x"
    view = memoryview(buffer)
    address = ctypes.addressof(buffer)
    del buffer
    gc.collect()
    assert arena.held == 0
    del view
    gc.collect()
    assert arena.held == 3 * HUGE
    assert arena.take(3 * HUGE).address == address


def test_free_memory_is_bounded_and_what_is_in_use_stays() -> None:
    arena, size = Arena(), MOST_FREE // 8
    lent = [arena.take(size) for _ in range(12)]
    for memory in lent:
        arena.give_back(memory)
    assert arena.held <= MOST_FREE + size
    used = arena.take(HUGE)
    arena.give_back(used)
    assert arena.held <= MOST_FREE + size
    assert arena.take(HUGE) is used, "others go first"
    arena.clear()
    assert arena.held == 0


def test_the_largest_buffer_is_kept_beside_small_ones_until_it_is_trimmed() -> None:
    """A workspace beyond the bound and an output that comes and goes: fresh pages in each call cost a fifth of it."""
    arena, size = Arena(), MOST_FREE + HUGE
    large = arena.take(size)
    output = arena.take(HUGE)
    arena.give_back(large)
    arena.give_back(output)
    assert arena.take(size) is large
    assert arena.take(HUGE) is output
    arena.give_back(output)
    arena.give_back(large)
    middle = arena.take(MOST_FREE // HUGE // 3 * HUGE)
    arena.give_back(middle)
    assert arena.take(size) is large
    assert arena.take(middle.size) is middle
    arena.give_back(large)
    arena.trim()
    assert arena.held <= MOST_FREE


def test_a_second_buffer_beyond_the_bound_goes() -> None:
    arena, size = Arena(), 2 * MOST_FREE
    first, second, other = arena.take(size), arena.take(size), arena.take(5 * size)
    for memory in (first, other, second):
        arena.give_back(memory)
    assert arena.held == 5 * size
    assert arena.take(5 * size) is other
