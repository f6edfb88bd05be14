"""The Winograd kernels by what they are for, and those that serve them."""

from functools import lru_cache

from lrw_kernels.codegen.kernel import RANGE, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.micro import forward_micro, weight_grad_micro
from lrw_kernels.cpu.recipe import Recipe

TRANSFORM, PRODUCTS = 8, 7  # arguments


def transform(recipe: Recipe) -> Kernel:
    """The gather or scatter kernel of a recipe."""
    return Kernel(f"cpu.kernels.{recipe.way}_kernel", (recipe.text,), TRANSFORM)


def products(machine: Machine, element: str) -> Kernel:
    """The kernel of the forward products, M = V U."""
    wide, narrow = (forward_micro(machine, element, vectors).text for vectors in (machine.vectors, 1))
    return Kernel("cpu.kernels.products_kernel", (wide, narrow), PRODUCTS)


def weight_grad(machine: Machine, element: str) -> Kernel:
    """The kernel of the weights' gradient, dU = or += V^T dM."""
    wide, narrow = (weight_grad_micro(machine, element, vectors).text for vectors in (machine.vectors, 1))
    return Kernel("cpu.kernels.weight_grad_kernel", (wide, narrow), PRODUCTS)


@lru_cache(maxsize=8)
def work_range(name: str) -> Kernel:
    """The loop over a region's items: "transform", "products", "blocks" or "clear"."""
    return Kernel(f"cpu.ranges.{name}_range", (), RANGE)


@lru_cache(maxsize=16)
def matrix_range(element: str, lanes: int, transposed: bool) -> Kernel:
    """The kernel that copies or transposes matrices."""
    return Kernel("cpu.ranges.matrix_range", (element, lanes, transposed), RANGE)


@lru_cache(maxsize=1)
def digest_range() -> Kernel:
    """The kernel that hashes memory."""
    return Kernel("cpu.ranges.digest_range", (), RANGE)


def peak(machine: Machine, element: str) -> Kernel:
    """A kernel of nothing but fused multiply-adds, which products are measured against."""
    return Kernel("cpu.ranges.peak_kernel", (forward_micro(machine, element, machine.vectors).text,), RANGE)
