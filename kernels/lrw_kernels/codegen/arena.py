"""Scratch memory: aligned, in huge pages where the system has them, kept from call to call.

Huge pages matter more than anything else here: the 216 positions of a F(4,3)^3 tile lie 216 pages of 4 KiB apart, more
than a core's first-level table of addresses holds, and hardware prefetching ends at a page.
"""

import ctypes
import mmap
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

HUGE = 2 << 20
MOST_FREE = 256 << 20  # bytes kept for later calls beside the largest buffer


@dataclass(frozen=True)
class Memory:
    """`size` zeroed bytes at `address`, a multiple of the huge page size where they fill one, else of a page."""

    size: int
    address: int
    _owner: mmap.mmap = field(repr=False)

    def clear(self, size: int) -> None:
        """Zero the first `size` bytes."""
        ctypes.memset(self.address, 0, size)

    def view(self, size: int) -> npt.NDArray[np.uint8]:
        """The first `size` bytes as an array, which keeps the memory alive."""
        offset = self.address - ctypes.addressof(ctypes.c_char.from_buffer(self._owner))
        return np.frombuffer(self._owner, np.uint8, size, offset)

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


class Arena:
    """Buffers that calls borrow and give back. Concurrent calls get different ones; what is free is reused.

    Buffers come back whenever collection chooses, in the middle of anything, so there is no lock giving back could wait
    for: free ones lie in stacks by size, whose operations nothing interrupts.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[Memory]] = {}

    def take(self, size: int) -> Memory:
        """A buffer of at least `size` bytes, with anything in them, until it is given back: the smallest free one that
        is no more than twice as large, or a new one."""
        need = -(-size // HUGE) * HUGE or HUGE
        with suppress(KeyError, IndexError):
            return self._free[need].pop()
        for other in sorted(other for other in list(self._free) if need < other <= 2 * need):
            with suppress(IndexError):
                return self._free[other].pop()
        return Memory.of(need)

    def give_back(self, memory: Memory) -> None:
        """Take back what `take` lent. Of free buffers the largest stays, however large, and MOST_FREE bytes beside it;
        the others go to the system, those of this one's size last."""
        self._free.setdefault(memory.size, deque()).append(memory)
        self._release(max((size for size, free in list(self._free.items()) if free), default=0), memory.size)

    def trim(self) -> None:
        """Give free buffers beyond MOST_FREE bytes to the system, however large they are."""
        self._release()

    def _release(self, largest: int = 0, last: int = 0) -> None:
        """Give free buffers to the system until MOST_FREE bytes are left beside one of the `largest` size, those of the
        size `last` at the end."""
        if self.held > MOST_FREE + largest:
            sizes = list(self._free)  # at once: others may come and go meanwhile
            for size in sorted(sizes, key=last.__eq__):
                with suppress(KeyError, IndexError):
                    while self.held > MOST_FREE + largest and len(self._free[size]) > (size == largest):
                        self._free[size].popleft()

    @contextmanager
    def borrow(self, size: int) -> Iterator[Memory]:
        """A buffer of at least `size` bytes for a `with` block, given back at its end."""
        memory = self.take(size)
        try:
            yield memory
        finally:
            self.give_back(memory)

    def buffer(self, size: int) -> Any:
        """A writable buffer of `size` bytes, taken until nothing refers to it any more."""
        memory = self.take(size)
        buffer = _lent(size).from_address(memory.address)
        buffer.memory, buffer.arena = memory, self
        return buffer

    @property
    def held(self) -> int:
        """Bytes kept for later calls."""
        return sum(size * len(free) for size, free in list(self._free.items()))

    def clear(self) -> None:
        """Give all free buffers back to the system."""
        self._free.clear()


@lru_cache(maxsize=256)
def _lent(size: int) -> Any:
    """The type of a buffer of `size` bytes that goes back to its arena with its last reference."""

    def give_back(buffer: Any) -> None:
        buffer.arena.give_back(buffer.memory)

    return type("Lent", (ctypes.c_char * size,), {"__del__": give_back})


ARENA = Arena()
