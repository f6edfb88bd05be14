"""From a kernel's Python function to an address: Numba to LLVM IR, LLVM to an object, the object kept on disk.

Numba's own cache would hit as well (the kernels are closures over literals), but using it means importing Numba and
building its type tables in every process, half a second. An object needs llvmlite's loader only. Files are named by a
hash of everything they depend on, these sources and the versions and the host's features included.
"""

import ctypes
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

SLOW_COMPILE = 1.0  # seconds of compiling in a process after which the user gets a line
_LOCK = threading.RLock()
_ENGINES: list[Any] = []
_ADDRESSES: dict[str, int] = {}
_compiling = 0.0
_complained = False


def _renew_lock() -> None:
    global _LOCK
    _LOCK = threading.RLock()  # in a forked child: another thread may have held the parent's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def address(name: str, arguments: int, make: Callable[[], Callable[..., None]]) -> int:
    """Where the kernel `name` of so many int64 arguments lies in memory; `make` gives its Python function if need be.

    `name` must say everything that distinguishes the kernel. Thread-safe; each kernel is compiled once.
    """
    known = _ADDRESSES.get(name)
    if known is not None:
        return known
    with _LOCK:
        if name not in _ADDRESSES:
            _ADDRESSES[name] = _load(_object(name, arguments, make))
        return _ADDRESSES[name]


def cache_folder() -> Path:
    """LRW_CACHE_DIR, or the user's cache folder."""
    chosen = os.environ.get("LRW_CACHE_DIR")
    if chosen:
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "lrw")
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir(), "lrw")


def _object(name: str, arguments: int, make: Callable[[], Callable[..., None]]) -> bytes:
    path = cache_folder() / f"{_key(name)}.o"
    stored = _read(path)
    if stored is not None:
        return stored
    started = time.perf_counter()
    data = _compile(make(), arguments)
    _tell(time.perf_counter() - started, path.parent)
    _write(path, data)
    return data


def _tell(seconds: float, folder: Path) -> None:
    """One line in a process, when compiling has taken over a second."""
    global _compiling
    before, _compiling = _compiling, _compiling + seconds
    if before <= SLOW_COMPILE < _compiling:
        sys.stderr.write(f"lrw: compiling kernels for this machine; later runs find them in {folder}\n")


def _key(name: str) -> str:
    return hashlib.sha256(f"{_environment()}\n{name}".encode()).hexdigest()[:40]


@lru_cache(maxsize=1)
def _environment() -> str:
    """The sources kernels are made from, the compilers, the host."""
    from llvmlite import binding

    here = Path(__file__).parent
    digest = hashlib.sha256()
    for folder in (here, here.parent / "winograd"):
        for source in sorted(folder.rglob("*.py")):
            digest.update(source.read_bytes())
    features: Any = binding.get_host_cpu_features()
    versions = (version("numba"), version("llvmlite"), sys.version_info[:2])
    return f"{digest.hexdigest()} {versions} {binding.get_host_cpu_name()} {features.flatten()}"


def _read(path: Path) -> bytes | None:
    """The object, unless it is missing or damaged: a checksum comes first."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _write(path: Path, data: bytes) -> None:
    """Into place in one step, so that no other process sees half a file; a folder we may not write to is no error."""
    global _complained
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="writing-") as folder:
            whole = Path(folder, path.name)
            whole.write_bytes(hashlib.sha256(data).digest() + data)
            os.replace(whole, path)
    except OSError as error:
        if not _complained:
            sys.stderr.write(f"lrw: kernels are not kept, {path.parent} cannot be written: {error.strerror}\n")
        _complained = True


def _compile(function: Callable[..., None], arguments: int) -> bytes:
    binding, machine = _llvm()
    name, text = _numba_ir(function, arguments)
    letters = [f"i64 %a{i}" for i in range(arguments)]
    entry = f"""
define void @lrw_kernel({", ".join(letters)}) nounwind "no-builtins" {{
  %result = alloca ptr
  %exception = alloca ptr
  call i32 @"{name}"(ptr %result, ptr %exception, {", ".join(letters)})
  ret void
}}
"""
    module = binding.parse_assembly(text.replace(" {\n", ' "no-builtins" {\n') + entry)
    module.verify()
    data: bytes = machine.emit_object(module)
    return data


def _numba_ir(function: Callable[..., None], arguments: int) -> tuple[str, str]:
    """Name and optimised IR."""
    compiler: Any = import_module("numba.core.compiler")
    types: Any = import_module("numba.core.types")
    target: Any = import_module("numba.core.registry").cpu_target
    flags = compiler.Flags()
    flags.error_model = "numpy"
    flags.nrt = False
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    contexts = target.typing_context, target.target_context
    result = compiler.compile_extra(*contexts, function, (types.int64,) * arguments, types.void, flags, {})
    return result.fndesc.llvm_func_name, result.library.get_llvm_str()


@lru_cache(maxsize=1)
def _llvm() -> tuple[Any, Any]:
    binding: Any = import_module("llvmlite.binding")
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    machine = target.create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
    return binding, machine


def _load(data: bytes) -> int:
    binding, _ = _llvm()
    target = binding.Target.from_default_triple().create_target_machine(codemodel="small", reloc="pic", jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), target)
    engine.add_object_file(binding.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _ENGINES.append(engine)
    found: int = engine.get_function_address("lrw_kernel")
    if found == 0:
        raise RuntimeError("kernel object without its entry point")
    return found


def callable_at(entry: int, arguments: int) -> Callable[..., None]:
    """The kernel at an address as something to call; releases the GIL."""
    return ctypes.CFUNCTYPE(None, *(ctypes.c_int64,) * arguments)(entry)
