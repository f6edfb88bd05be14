"""Kernels as data. They are made on first use: compiled here, or lowered ahead of time elsewhere."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module

from lrw_kernels.codegen import compiled

Function = Callable[..., None]
"""What a kernel is made from: a Python function of int64s that Numba understands."""

ITEM, WORK = 3, 1  # arguments: (job, item, scratch) and (region), or (regions)


@dataclass(frozen=True)
class Kernel:
    """A kernel as data: `maker`, "package.module.function" below lrw_kernels, gives its function of `count` int64."""

    maker: str
    arguments: tuple[str | int | bool, ...]
    count: int

    @cached_property
    def text(self) -> str:
        """One line that says everything about it."""
        return json.dumps([self.maker, *self.arguments])

    def function(self) -> Function:
        """The Python function; only here is Numba imported."""
        module, _, name = self.maker.rpartition(".")
        made: Function = getattr(import_module(f"lrw_kernels.{module}"), name)(*self.arguments)
        return made

    @property
    def address(self) -> int:
        """The address of the kernel in this process, compiled for this machine where it is not there yet."""
        return compiled.address(self.text, ("int64",) * self.count, self.function)

    @property
    def lacking(self) -> bool:
        """Whether it is yet to be compiled for this machine, and could be kept then."""
        return compiled.lacks(self.text)

    def keep(self) -> None:
        """Have it on disk for this machine, where anything can be kept."""
        compiled.keep(self.text, ("int64",) * self.count, self.function)


WORK_KERNEL = Kernel("codegen.region.work_kernel", (), WORK)
REGIONS_KERNEL = Kernel("codegen.region.regions_kernel", (), WORK)
