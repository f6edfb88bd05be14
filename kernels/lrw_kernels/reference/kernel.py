"""Plain kernels on NumPy arrays, compiled and kept as every kernel is."""

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen import compiled

Argument = npt.NDArray[Any] | int


class Kernel:
    """A function of arrays and integers that Numba understands; a decorator.

    Called, it runs compiled for the types it is given; `py_func` is the function itself. Numba is imported only where a
    kernel has never been compiled.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.py_func = function
        self.__doc__ = function.__doc__

    def __call__(self, *arguments: Argument) -> None:
        """Run it on these."""
        types = tuple(map(_type, arguments))
        numbers = [number for argument in arguments for number in _numbers(argument)]
        entry = compiled.address(f"reference {self.py_func.__name__} {types}", types, lambda: self.py_func)
        compiled.callable_at(entry, len(numbers))(*numbers)

    @property
    def _numba_type_(self) -> Any:
        """By which Numba knows what another kernel calls."""
        return import_module("numba").typeof(self._helper)

    @cached_property
    def _helper(self) -> Any:
        return import_module("lrw_kernels.codegen.settings").helper(self.py_func)


def _type(argument: Argument) -> str:
    """As `native.compile` takes it."""
    if not isinstance(argument, np.ndarray):
        return "int64"
    return f"{argument.dtype.name} {argument.ndim} {'C' if argument.flags.c_contiguous else 'A'}"


def _numbers(argument: Argument) -> tuple[int, ...]:
    """What Numba takes an argument apart into, without the two owners of an array."""
    if not isinstance(argument, np.ndarray):
        return (argument,)
    return 0, 0, argument.size, argument.itemsize, argument.ctypes.data, *argument.shape, *argument.strides
