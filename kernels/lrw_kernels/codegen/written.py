"""Whether memory was written since it was read last, as the system notes it: without reading it again.

Linux from 6.7 on can protect pages from writing such that the first write to each takes the protection away and nobody
notices (userfaultfd, asynchronously), and can tell in a moment whether some page of a range is without it
(PAGEMAP_SCAN). Every way to write through this process's memory is seen, a system call's too; so only memory that this
process has for itself is watched. Where the system has no such thing or refuses it, nothing is watched.

One protection serves all who ask: each has a number, which is written down before the notes of the one before are gone
and compared after they are read.
"""

import ctypes
import mmap
import os
import platform
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import NamedTuple
from weakref import WeakValueDictionary

from lrw_kernels.codegen.machine import KIB

PAGE = mmap.PAGESIZE
LEAST = max(128 * KIB, 2 * PAGE)  # bytes that are worth asking for
MOST_RANGES = 4096  # of all networks: each is asked for by itself
_CALLS = {"x86_64": 323, "aarch64": 282}  # numbers of the system call userfaultfd
_API, _REGISTER, _SCAN = 0xC018AA3F, 0xC020AA00, 0xC0606610  # requests to ioctl
_VERSION, _FEATURES = 0xAA, 1 << 13 | 1 << 15  # pages nobody touched; asynchronous
_USER_MODE_ONLY, _WRITE_PROTECTED = 1, 2
_PROTECTS, _CHECKS = 1, 2  # what a scan does with the pages it finds; that it fails where nothing is noted
_WRITTEN, _PRESENT = 1 << 1, 1 << 3  # kinds of pages
_SCAN_BYTES = 96
_RESULT = ctypes.create_string_buffer(24)  # of the first pages that are found, which nobody reads
Range = tuple[int, int]  # addresses, of pages from the first to the last (not included)
_NUMBERS = count(1)


class _Noted:
    """A range that the system notes writes to, for all who watch it: the number of its last protection."""

    def __init__(self, at: Range) -> None:
        self.at, self.number = at, 0
        self.check, self.protection = _scan(at, _CHECKS), _scan(at, _PROTECTS | _CHECKS)


_NOTED: WeakValueDictionary[Range, _Noted] = WeakValueDictionary()  # those that somebody watches


class Watched:
    """Some ranges of whole pages that the system notes writes to."""

    def __init__(self, noted: Sequence[_Noted]) -> None:
        self._noted = (*noted,)

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The addresses of each: the first, and the last (not included)."""
        return tuple(each.at for each in self._noted)

    def protect(self) -> int:
        """From now on, note writes; returns a number by which `written` knows since when. What is read after this is
        to be read anew once it was written."""
        number = next(_NUMBERS)
        for each in self._noted:
            each.number = number
        with suppress(OSError):  # memory that is not what it was: it counts as written
            for each in self._noted:
                _request(_SCAN, each.protection)
        return number

    def written(self, since: int) -> bool:
        """Whether something may have been written since `protect` gave this number, or was protected anew."""
        try:
            found = any(_request(_SCAN, each.check) for each in self._noted)
        except OSError:
            return True
        return found or any(each.number != since for each in self._noted)


def watched(places: Iterable[range]) -> Watched:
    """The whole pages of those `places`, ranges of addresses, that can be watched."""
    ranges = [(-(-place.start // PAGE) * PAGE, place.stop // PAGE * PAGE) for place in places]
    ranges = [(first, last) for first, last in dict.fromkeys(ranges) if last - first >= LEAST]
    if not ranges or not supported():
        return Watched(())
    own = _own_memory()
    of_this_process = (at for at in ranges if any(first <= at[0] and at[1] <= last for first, last in own))
    return Watched([each for at in of_this_process if (each := _taken(at)) is not None])


def supported() -> bool:
    """Whether the system notes writes for this process. A forked child's memory is another one."""
    found = _descriptors()
    return found is not None and found.process == os.getpid()


def _taken(at: Range) -> _Noted | None:
    """A range that is noted from now on; None for one that shares pages with another, whose notes it would take."""
    known = _NOTED.get(at)
    others = [first < at[1] and at[0] < last for first, last in [*_NOTED.keys()]]
    if known is None and (len(others) >= MOST_RANGES or any(others)):
        return None
    try:
        _request(_REGISTER, _structure(at[0], at[1] - at[0], _WRITE_PROTECTED, 0))
    except OSError:
        return None
    return known or _NOTED.setdefault(at, _Noted(at))


def _scan(at: Range, flags: int) -> bytearray:
    """What PAGEMAP_SCAN is asked: for a page that was written, or that is not there: given back, it holds zeros."""
    kinds = _WRITTEN | _PRESENT
    result = (0, 0, 0) if flags & _PROTECTS else (ctypes.addressof(_RESULT), 1, 0)
    return _structure(_SCAN_BYTES, flags, *at, 0, *result, _PRESENT, 0, kinds, 0 if flags & _PROTECTS else kinds)


def _structure(*numbers: int) -> bytearray:
    return bytearray(struct.pack(f"{len(numbers)}Q", *numbers))


def _request(request: int, structure: bytearray) -> int:
    """What ioctl gives. Raises OSError where the system refuses."""
    import fcntl  # absent on Windows

    found = _descriptors()
    if found is None or found.process != os.getpid():
        raise OSError("the system notes no writes of this process")
    return int(fcntl.ioctl(found.asked if request == _SCAN else found.registered, request, structure))


class _Descriptors(NamedTuple):
    """The files that a process's ranges are registered with and asked of, open as long as it lives."""

    process: int
    registered: int
    asked: int


@lru_cache(maxsize=1)
def _descriptors() -> _Descriptors | None:
    """Those of the process that asked first; None where the system has none."""
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return None
    opened = ctypes.CDLL(None, use_errno=True).syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _USER_MODE_ONLY)
    if opened < 0:
        return None
    try:
        import fcntl

        fcntl.ioctl(opened, _API, _structure(_VERSION, _FEATURES, 0))
        return _Descriptors(os.getpid(), opened, os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        os.close(opened)
        return None


def _own_memory() -> list[Range]:
    """The memory that this process has for itself, of no file: neighbours as one."""
    found: list[Range] = []
    with suppress(OSError):
        for line in Path("/proc/self/maps").read_text().splitlines():
            addresses, permissions, _, _, inode, *_ = line.split(maxsplit=5)
            if permissions[3] == "p" and permissions[1] == "w" and inode == "0":
                first, last = (int(address, 16) for address in addresses.split("-"))
                if found and found[-1][1] == first:
                    found[-1] = found[-1][0], last
                else:
                    found.append((first, last))
    return found
