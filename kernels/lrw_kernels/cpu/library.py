"""The kernels that serve others, by what they are for."""

from functools import lru_cache

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.micro import forward_micro


@lru_cache(maxsize=1)
def clear_item() -> Kernel:
    """The kernel that zeroes memory."""
    return Kernel("cpu.kernels.clear_item", (), ITEM)


@lru_cache(maxsize=16)
def matrix_item(element: str, lanes: int, transposed: bool) -> Kernel:
    """The kernel that copies or transposes matrices."""
    return Kernel("cpu.kernels.matrix_item", (element, lanes, transposed), ITEM)


@lru_cache(maxsize=16)
def narrow_item(element: str, lanes: int, count: int, apart: bool) -> Kernel:
    """The kernel that takes pixels of `count` numbers apart, or puts them together."""
    return Kernel("cpu.kernels.narrow_item", (element, lanes, count, apart), ITEM)


@lru_cache(maxsize=1)
def digest_item() -> Kernel:
    """The kernel that hashes memory."""
    return Kernel("cpu.kernels.digest_item", (), ITEM)


def peak(machine: Machine, element: str) -> Kernel:
    """A kernel of nothing but fused multiply-adds, which products are measured against."""
    return Kernel("cpu.kernels.peak_kernel", (forward_micro(machine, element, machine.vectors).text,), ITEM)
