"""Functions that kernels call: linked into them, and nothing of their own."""

import ctypes
from collections.abc import Callable

import pytest

from lrw_kernels.codegen import compiled, settings
from lrw_kernels.codegen.compile import compile_object
from lrw_kernels.codegen.intrinsics import get, put
from lrw_kernels.codegen.settings import helper


def kernel() -> Callable[..., None]:
    @helper
    def next_to(x):  # type: ignore[no-untyped-def]
        return x + 1

    @helper
    def doubled(x):  # type: ignore[no-untyped-def]
        return 2 * next_to(x)

    def run(at):  # type: ignore[no-untyped-def]
        put(at, doubled(get(at)))

    return run


def test_helpers_are_linked_and_nothing_is_made_of_them_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of this process, and one optimisation: that of the kernel."""
    with settings.own_settings():
        generator, optimised = settings._code_generator(), []
    monkeypatch.setattr(type(generator), "_add_module", lambda *_: pytest.fail("machine code of a helper"))
    passes = type(generator)._module_pass_manager
    monkeypatch.setattr(
        type(generator),
        "_module_pass_manager",
        lambda self, **given: (optimised.append(given), passes(self, **given))[1],
    )
    number = ctypes.c_int64(20)
    compiled.callable_at(compiled._load(compile_object(kernel, ["int64"])), 1)(ctypes.addressof(number))
    assert number.value == 42
    assert len(optimised) == 1


def test_a_helper_has_no_entry_from_python() -> None:
    function = helper(lambda x: x + 1)
    assert function.py_func(1) == 2
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        function(1)
