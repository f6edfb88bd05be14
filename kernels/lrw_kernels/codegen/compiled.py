"""From a kernel's Python function to its address: compiled once on a machine, then loaded from disk.

Numba's own cache would hit as well (the kernels are closures over literals), but using it means importing Numba and
building its type tables in every process, half a second; and it is pickles, in folders of its own choice. An object
needs llvmlite's loader only. Files are named by a hash of everything they depend on, these sources and the versions and
the host's features included.
"""

import ctypes
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from lrw_kernels.codegen import store
from lrw_kernels.codegen.check import is_own_object
from lrw_kernels.codegen.compile import ENTRY, compile_object, llvm
from lrw_kernels.codegen.versions import package_version

SLOW_COMPILE = 1.0  # seconds of compiling in a process after which the user gets a line
_SOURCES = ("codegen", "cpu", "reference", "winograd")  # the folders kernels are made from
_LOCK = threading.RLock()
_ENGINES: list[Any] = []
_ADDRESSES: dict[str, int] = {}
_compiling = 0.0


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.RLock()  # in a forked child: another thread may have held the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def address(name: str, arguments: Sequence[str], make: Callable[[], Callable[..., None]]) -> int:
    """The address of the kernel `name`; `make` gives its Python function if need be, of `compile`'s `arguments`.

    `name` must say everything that distinguishes the kernel. Thread-safe; each kernel is compiled once.
    """
    known = _ADDRESSES.get(name)
    if known is not None:
        return known
    with _LOCK:
        if name not in _ADDRESSES:
            _ADDRESSES[name] = _load(_object(name, arguments, make))
        return _ADDRESSES[name]


def lacks(name: str) -> bool:
    """Whether the kernel `name` could be on disk, and is neither there nor loaded."""
    if name in _ADDRESSES:
        return False
    file = _file(name)
    return file is not None and store.lacks(file)


def keep(name: str, arguments: Sequence[str], make: Callable[[], Callable[..., None]]) -> None:
    """Have the kernel `name` on disk, where anything can be kept; the rest as in `address`."""
    _object(name, arguments, make)


def callable_at(entry: int, numbers: int) -> Callable[..., None]:
    """The kernel at an address as something to call with so many int64; releases the GIL."""
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * numbers)(entry)


def _object(name: str, arguments: Sequence[str], make: Callable[[], Callable[..., None]]) -> bytes:
    file = _file(name)
    stored = None if file is None else store.read(file)
    if stored is not None and is_own_object(stored, _empty_object(), ENTRY):
        return stored
    started = time.perf_counter()
    data = compile_object(make, arguments)
    seconds = time.perf_counter() - started
    _tell(seconds, None if file is None else store.write(file, data))
    return data


def _tell(seconds: float, folder: Path | None) -> None:
    """One line in a process, when compiling has taken over a second."""
    global _compiling
    before, _compiling = _compiling, _compiling + seconds
    if before <= SLOW_COMPILE < _compiling:
        store.say(f"compiling kernels for this machine{f'; later runs find them in {folder}' if folder else ''}")


def _file(name: str) -> str | None:
    """The name of the kernel's file; None, which is said, where it cannot be told because sources are missing (a frozen
    application)."""
    known = known_here(name)
    if known is None:
        store.say_once("their sources, by which later runs would know them, are not here")
        return None
    return known + ".o"


def known_here(name: str) -> str | None:
    """A name for what holds for these sources, compilers and this machine alone; None where sources are missing."""
    environment = _environment()
    return None if environment is None else hashlib.sha256(f"{environment}\n{name}".encode()).hexdigest()[:40]


@lru_cache(maxsize=1)
def _environment() -> str | None:
    """The sources kernels are made from, the compilers, the host; None where the sources are not there."""
    binding, _ = llvm()
    digest, here = hashlib.sha256(), Path(__file__).parent.parent
    sources = [source for folder in _SOURCES for source in sorted((here / folder).rglob("*.py"))]
    if not sources:
        return None
    for source in sources:
        digest.update(source.read_bytes())
    versions = (package_version("numba"), package_version("llvmlite"), sys.version_info[:2])
    return f"{digest.hexdigest()} {versions} {binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"


@lru_cache(maxsize=1)
def _empty_object() -> bytes:
    """An object of this machine without functions, which others are compared with before they are loaded."""
    binding, machine = llvm()
    data: bytes = machine.emit_object(binding.parse_assembly(""))
    return data


def _load(data: bytes) -> int:
    binding, _ = llvm()
    target = binding.Target.from_default_triple().create_target_machine(codemodel="small", reloc="pic", jit=True)
    # llvmlite's memory manager takes all sections of an object from one block. LLVM's own looks for each by itself, and
    # in a process whose free addresses lie more than 2 GiB apart code cannot reach its constants: LLVM then aborts.
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target, use_lmm=True)
    engine.add_object_file(binding.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _ENGINES.append(engine)
    found: int = engine.get_function_address(ENTRY)
    if found == 0:
        raise RuntimeError("kernel object without its entry point")
    return found
