"""Every kernel by what it is for. Kernels are made on first use: compiled here, or lowered ahead of time elsewhere."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import import_module

from lrw_kernels.cpu.machine import Machine
from lrw_kernels.cpu.micro import forward_micro, weight_grad_micro
from lrw_kernels.cpu.program import Program
from lrw_kernels.native import compiled

TRANSFORM, PRODUCTS, RANGE, WORK = 8, 7, 4, 1  # arguments


@dataclass(frozen=True)
class Kernel:
    """A kernel as data: `maker`, "module.function" of this package, gives its Python function of `count` int64."""

    maker: str
    arguments: tuple[str | int | bool, ...]
    count: int

    @cached_property
    def text(self) -> str:
        """One line that says everything about it."""
        return json.dumps([self.maker, *self.arguments])

    def function(self) -> Callable[..., None]:
        """The Python function; only here is Numba imported."""
        module, _, name = self.maker.rpartition(".")
        made: Callable[..., None] = getattr(import_module(f"lrw_kernels.cpu.{module}"), name)(*self.arguments)
        return made

    @property
    def address(self) -> int:
        """Where it lies in this process's memory, compiled for this machine."""
        return compiled.address(self.text, ("int64",) * self.count, self.function)


def transform(program: Program) -> Kernel:
    """A gather or scatter kernel."""
    return Kernel(f"kernels.{program.way}_kernel", (program.text,), TRANSFORM)


def products(machine: Machine, element: str) -> Kernel:
    """M = V U."""
    wide, narrow = (forward_micro(machine, element, vectors).text for vectors in (machine.vectors, 1))
    return Kernel("kernels.products_kernel", (wide, narrow), PRODUCTS)


def weight_grad(machine: Machine, element: str) -> Kernel:
    """dU += V^T dM."""
    wide, narrow = (weight_grad_micro(machine, element, vectors).text for vectors in (machine.vectors, 1))
    return Kernel("kernels.weight_grad_kernel", (wide, narrow), PRODUCTS)


@lru_cache(maxsize=8)
def work_range(name: str) -> Kernel:
    """The loop over a region's items: "transform", "products", "blocks" or "clear"."""
    return Kernel(f"ranges.{name}_range", (), RANGE)


@lru_cache(maxsize=16)
def matrix_range(element: str, lanes: int, transposed: bool) -> Kernel:
    """Copies or transposes matrices."""
    return Kernel("ranges.matrix_range", (element, lanes, transposed), RANGE)


@lru_cache(maxsize=1)
def digest_range() -> Kernel:
    """Hashes memory."""
    return Kernel("ranges.digest_range", (), RANGE)


def peak(machine: Machine, element: str) -> Kernel:
    """Nothing but fused multiply-adds: what products are measured against."""
    return Kernel("ranges.peak_kernel", (forward_micro(machine, element, machine.vectors).text,), RANGE)


WORK_KERNEL = Kernel("ranges.work_kernel", (), WORK)
