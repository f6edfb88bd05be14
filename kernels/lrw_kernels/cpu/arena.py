"""Scratch memory: aligned, in huge pages where the system has them, kept from call to call.

Huge pages matter more than anything else here: the 216 positions of a F(4,3)^3 tile lie 216 pages of 4 KiB apart, more
than a core's first-level table of addresses holds, and hardware prefetching ends at a page.
"""

import ctypes
import mmap
import os
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from weakref import finalize

HUGE = 2 << 20
MOST_FREE = 256 << 20  # bytes kept for later calls; what came back first goes first


@dataclass(frozen=True)
class Memory:
    """`size` zeroed bytes at `address`, a multiple of the huge page size where they fill one, else of a page."""

    size: int
    address: int
    _owner: mmap.mmap = field(repr=False)

    def clear(self, size: int) -> None:
        """Zero the first `size` bytes."""
        ctypes.memset(self.address, 0, size)

    @staticmethod
    def of(size: int) -> "Memory":
        """New memory, given back when the last reference goes."""
        spare = HUGE if size >= HUGE else 0
        # Private: Python's default is shared memory, which has no huge pages and which forked children would share.
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        owner = mmap.mmap(-1, size + spare, **private)
        start = ctypes.addressof(ctypes.c_char.from_buffer(owner))
        if spare and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them: the same memory, only slower
                owner.madvise(mmap.MADV_HUGEPAGE)
        return Memory(size, start + (-start % HUGE if spare else 0), owner)


class _Loan:
    """Memory of an arena between entering and leaving a `with`."""

    def __init__(self, arena: "Arena", size: int) -> None:
        self._arena, self._memory = arena, arena.take(size)

    def __enter__(self) -> Memory:
        return self._memory

    def __exit__(self, *_: object) -> None:
        self._arena.give_back(self._memory)


class Arena:
    """Buffers that calls borrow and give back. Concurrent calls get different ones; what is free is reused."""

    def __init__(self) -> None:
        self._free: list[Memory] = []
        self._returned: deque[Memory] = deque()  # given back, at any moment collection chooses: no lock may be taken
        self._renew_lock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()  # in a forked child: another thread may have held the parent's

    def borrow(self, size: int) -> "_Loan":
        """`with arena.borrow(size) as memory:` at least `size` bytes, with anything in them."""
        return _Loan(self, size)

    def buffer(self, size: int) -> "ctypes.Array[ctypes.c_char]":
        """A writable buffer of `size` bytes, borrowed until nothing refers to it any more."""
        memory = self.take(size)
        lent = (ctypes.c_char * size).from_address(memory.address)
        finalize(lent, self.give_back, memory).atexit = False  # others may still use it then
        return lent

    def give_back(self, memory: Memory) -> None:
        """What `take` lent."""
        self._returned.append(memory)

    def _collect(self) -> None:
        """Under the lock: what came back is free; beyond the bound, what came first goes."""
        while self._returned:
            self._free.append(self._returned.popleft())
        while sum(free.size for free in self._free) > MOST_FREE:
            self._free.pop(0)

    def take(self, size: int) -> Memory:
        """The smallest free buffer that is large enough, but no more than twice that; else a new one."""
        need = -(-max(size, 1) // HUGE) * HUGE
        with self._lock:
            self._collect()
            fitting = [memory for memory in self._free if need <= memory.size <= 2 * need]
            if fitting:
                chosen = min(fitting, key=lambda memory: memory.size)
                self._free.remove(chosen)
                return chosen
        return Memory.of(need)

    @property
    def held(self) -> int:
        """Bytes kept for later calls."""
        with self._lock:
            self._collect()
            return sum(memory.size for memory in self._free)

    def clear(self) -> None:
        """Give all free buffers back to the system."""
        with self._lock:
            self._collect()
            self._free.clear()


ARENA = Arena()
