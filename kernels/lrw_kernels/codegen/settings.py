"""Numba under our own settings: what a user sets for code of his own neither changes nor breaks a kernel.

Settings come from NUMBA_* variables, from a .numba_config.yaml in the current folder and from the program itself; some
are read once for a process, others whenever something is compiled. Ours are all of Numba's defaults.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from typing import Any

# Defaults that would follow the environment all the same: a profiler's variable turns both on.
_FIXED = {"NUMBA_ENABLE_PROFILING": "0", "NUMBA_DEBUGINFO": "0"}


@contextmanager
def own_settings() -> Iterator[None]:
    """While this lasts, Numba compiles under our settings; then theirs are back. Other threads' compilations wait."""
    # Any: Numba says that it is typed, but is not.
    config: Any = import_module("numba.core.config")
    lock: Any = import_module("numba.core.compiler_lock").global_compiler_lock
    with lock:
        context = import_module("numba.core.registry").cpu_target.target_context  # where new, made under their settings
        context.refresh()
        theirs, read_again = _values(config), config.reload_config
        processor, made_inside = context._internal_codegen, context.cached_internal_func
        try:
            config.reload_config = lambda: None  # which the compiler calls each time, to follow the environment
            vars(config).update(_defaults(config))
            context._internal_codegen, context.cached_internal_func = _code_generator(), _made_inside
            yield
        finally:
            context._internal_codegen, context.cached_internal_func = processor, made_inside
            vars(config).update(theirs)
            config.reload_config = read_again


def helper(function: Callable[..., Any]) -> Any:
    """`function` for kernels to call: a decorator. It becomes IR that is linked into them, and nothing of its own that
    could run: Numba's own decorator makes code of each, and an entry from Python, in a third of a kernel's time."""
    return _helpers()(function, {}, {"nopython": True, "error_model": "numpy"})


@lru_cache(maxsize=1)
def _helpers() -> Any:
    """The class of helpers; Numba comes with it."""
    base: Any = import_module("numba.core.registry").CPUDispatcher

    class Helper(base):  # type: ignore[misc]
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self._compiler._customize_flags = _as_ir

        def add_overload(self, made: Any) -> None:
            entry = object()  # by which callers know it: no address of a function, since there is none
            made.library.is_linked_only = True
            self.targetctx.insert_user_function(entry, made.fndesc, [made.library])
            self.overloads[tuple(made.signature.args)] = made._replace(entry_point=entry)

    return Helper


def _as_ir(flags: Any) -> Any:
    flags.no_compile = flags.no_cpython_wrapper = flags.no_cfunc_wrapper = True
    return flags


_made_inside: dict[Any, Any] = {}  # what Numba compiles on the way, otherwise shared with code under other settings


def _values(config: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(config).items() if name.isupper()}


@lru_cache(maxsize=1)
def _defaults(config: Any) -> dict[str, Any]:
    """Every setting as Numba has it in an empty environment; but not its number of threads, which belongs to a pool."""
    theirs = _values(config)
    try:
        config._env_reloader.process_environ(_FIXED | {"NUMBA_NUM_THREADS": str(config.NUMBA_NUM_THREADS)})
        return _values(config)
    finally:
        vars(config).update(theirs)


@lru_cache(maxsize=1)
def _code_generator() -> Any:
    """A code generator for this processor; Numba's own keeps to the processor that was set when it was made.

    Of most functions it is asked for their IR alone. So it optimises a kernel's module with all that is linked into it
    (Numba does so by function, then twice: once more for reference counts, which there are none of), and makes code of
    this process where an address is asked for. Kernels are vectors from the start: one pass that inlines and simplifies
    gives code as fast as all of Numba's do, in a third of their time (numbers in bench/notes/cpu.md).
    """
    base: Any = import_module("numba.core.codegen")

    class Library(base.JITCodeLibrary):  # type: ignore[misc]
        _loaded = is_linked_only = False

        def _optimize_functions(self, ll_module: Any) -> None:
            ll_module.data_layout = self._codegen._data_layout

        def _optimize_final_module(self) -> None:
            if self.is_linked_only:
                return
            passes, builder = self._codegen._module_pass_manager(opt=1, loop_vectorize=False, slp_vectorize=False)
            with self._recorded_timings.record("Module passes", builder):
                passes.run(self._final_module, builder)

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._verify_declare_only_symbols()
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> Any:
            self._ensure_finalized()
            if not self._loaded:
                self._loaded = True
                self._codegen._add_module(self._final_module)
                self._finalize_specific()
            return super().get_pointer_to_function(name)

    class Generator(base.JITCPUCodegen):  # type: ignore[misc]
        _library_class = Library

    return Generator("lrw")
