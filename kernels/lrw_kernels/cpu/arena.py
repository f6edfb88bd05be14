"""Scratch memory: aligned, in huge pages where the system has them, kept from call to call.

Huge pages matter more than anything else here: the 216 positions of a F(4,3)^3 tile lie 216 pages of 4 KiB apart, more
than a core's first-level table of addresses holds, and hardware prefetching ends at a page.
"""

import ctypes
import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

HUGE = 2 << 20


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
        owner = mmap.mmap(-1, size + spare)
        start = ctypes.addressof(ctypes.c_char.from_buffer(owner))
        if spare and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                owner.madvise(mmap.MADV_HUGEPAGE)
            except OSError:  # a kernel without them; the same memory, only slower
                pass
        return Memory(size, start + (-start % HUGE if spare else 0), owner)


class Arena:
    """Buffers that calls borrow and give back. Concurrent calls get different ones; what is free is reused."""

    def __init__(self) -> None:
        self._free: list[Memory] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, size: int) -> Iterator[Memory]:
        """At least `size` bytes, with anything in them."""
        memory = self._take(size)
        try:
            yield memory
        finally:
            with self._lock:
                self._free.append(memory)

    def _take(self, size: int) -> Memory:
        """The smallest free buffer that is large enough; else a new one in place of the largest that is not."""
        with self._lock:
            fitting = [memory for memory in self._free if memory.size >= size]
            if fitting or self._free:
                chosen = min(fitting, key=lambda m: m.size) if fitting else max(self._free, key=lambda m: m.size)
                self._free.remove(chosen)
                if fitting:
                    return chosen
        return Memory.of(-(-max(size, 1) // HUGE) * HUGE)

    @property
    def held(self) -> int:
        """Bytes kept for later calls."""
        with self._lock:
            return sum(memory.size for memory in self._free)

    def clear(self) -> None:
        """Give all free buffers back to the system."""
        with self._lock:
            self._free.clear()


ARENA = Arena()
