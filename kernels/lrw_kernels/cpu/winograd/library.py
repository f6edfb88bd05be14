"""The Winograd kernels by what they are for."""

from functools import lru_cache

from lrw_kernels.codegen.kernel import ITEM, Kernel
from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.micro import forward_micro, weight_grad_micro
from lrw_kernels.cpu.winograd.recipe import Recipe

TRANSFORM, PRODUCTS = 8, 7  # arguments


def transform(recipe: Recipe) -> Kernel:
    """The gather or scatter kernel of a recipe."""
    return Kernel(f"cpu.winograd.kernels.{recipe.way}_kernel", (recipe.text,), TRANSFORM)


def products(machine: Machine, element: str, *, alone: bool) -> Kernel:
    """The kernel of the forward products, M = V U; `alone` as in `forward_micro`."""
    wide, narrow = (forward_micro(machine, element, vectors, alone=alone).text for vectors in (machine.vectors, 1))
    return Kernel("cpu.winograd.kernels.products_kernel", (wide, narrow), PRODUCTS)


def weight_grad(machine: Machine, element: str) -> Kernel:
    """The kernel of the weights' gradient, dU = or += V^T dM."""
    wide, narrow = (weight_grad_micro(machine, element, vectors).text for vectors in (machine.vectors, 1))
    return Kernel("cpu.winograd.kernels.weight_grad_kernel", (wide, narrow), PRODUCTS)


@lru_cache(maxsize=8)
def work_item(name: str) -> Kernel:
    """What is done for an item of a region: "transform", "products" or "tiles"."""
    return Kernel(f"cpu.winograd.items.{name}_item", (), ITEM)
