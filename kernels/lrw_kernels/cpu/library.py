"""Every kernel by what it is for, as the address of compiled code. Kernels are made on first use."""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

from lrw_kernels.cpu import compiled
from lrw_kernels.cpu.machine import Machine
from lrw_kernels.cpu.micro import Micro, forward_micro, weight_grad_micro
from lrw_kernels.cpu.program import Program

TRANSFORM, PRODUCTS, RANGE = 8, 7, 4  # arguments


def transform(program: Program) -> int:
    """A gather or scatter kernel."""
    return compiled.address(f"transform {program.text}", TRANSFORM, lambda: _make(f"{program.way}_kernel", program))


def products(machine: Machine, element: str) -> int:
    """M = V U."""
    return _micro_kernel("products_kernel", forward_micro, machine, element)


def weight_grad(machine: Machine, element: str) -> int:
    """dU += V^T dM."""
    return _micro_kernel("weight_grad_kernel", weight_grad_micro, machine, element)


@lru_cache(maxsize=8)
def work_range(name: str) -> int:
    """The loop over a region's items: "transform", "products" or "blocks"."""
    return compiled.address(f"{name}_range", RANGE, lambda: _make(f"{name}_range"))


def matrix_range(machine: Machine, element: str, *, transposed: bool) -> int:
    """Copies or transposes matrices."""
    lanes = machine.lanes(element)
    name = f"matrix {element} {lanes} {transposed}"
    return compiled.address(name, RANGE, lambda: _make("matrix_range", element, lanes, transposed=transposed))


def peak(machine: Machine, element: str) -> int:
    """Nothing but fused multiply-adds: what products are measured against."""
    micro = forward_micro(machine, element, machine.vectors)
    return compiled.address(f"peak {micro.text}", RANGE, lambda: _make("peak_kernel", micro))


def _micro_kernel(name: str, micro: Callable[[Machine, str, int], Micro], machine: Machine, element: str) -> int:
    wide, narrow = micro(machine, element, machine.vectors), micro(machine, element, 1)
    return compiled.address(f"{name} {wide.text} {narrow.text}", PRODUCTS, lambda: _make(name, wide, narrow))


def _make(name: str, *arguments: Any, **options: Any) -> Callable[..., None]:
    """The Python function of a kernel; only here is Numba imported."""
    modules = (import_module(f"lrw_kernels.cpu.{module}") for module in ("kernels", "ranges"))
    maker = next(getattr(module, name) for module in modules if hasattr(module, name))
    function: Callable[..., None] = maker(*arguments, **options)
    return function
