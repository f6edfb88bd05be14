"""What every builder of steps is told beside the operator and its activations."""

from typing import NamedTuple

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.step import Keep
from lrw_kernels.cpu.winograd.plan import Planner


class Means(NamedTuple):
    """A machine, how many threads at most, the numbers of the Winograd domain, the bytes of scratch that V and M may
    take without the workspace growing, and who plans Winograd layers. `in_place`: the program runs in this process.
    `keep`: memory for sums of the outputs, where a norm reads them."""

    machine: Machine
    threads: int
    element: str
    spare: int
    planner: Planner
    in_place: bool = False
    keep: Keep | None = None
