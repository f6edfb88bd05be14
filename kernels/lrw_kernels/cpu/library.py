"""The kernels that serve others, by what they are for."""

from functools import lru_cache

from lrw_kernels.codegen.kernel import RANGE, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.micro import forward_micro


@lru_cache(maxsize=1)
def clear_range() -> Kernel:
    """The kernel that zeroes memory."""
    return Kernel("cpu.kernels.clear_range", (), RANGE)


@lru_cache(maxsize=16)
def matrix_range(element: str, lanes: int, transposed: bool) -> Kernel:
    """The kernel that copies or transposes matrices."""
    return Kernel("cpu.kernels.matrix_range", (element, lanes, transposed), RANGE)


@lru_cache(maxsize=1)
def digest_range() -> Kernel:
    """The kernel that hashes memory."""
    return Kernel("cpu.kernels.digest_range", (), RANGE)


def peak(machine: Machine, element: str) -> Kernel:
    """A kernel of nothing but fused multiply-adds, which products are measured against."""
    return Kernel("cpu.kernels.peak_kernel", (forward_micro(machine, element, machine.vectors).text,), RANGE)
