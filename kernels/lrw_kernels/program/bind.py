"""A program bound to addresses of this process: its image with addresses where symbols were, ready to run.

What a library does at each start (`aot.kernels.begin_function`) is done once here, but for input and output.
"""

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen import threads
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.records import Region
from lrw_kernels.program.assemble import Program
from lrw_kernels.program.image import SECTION_BITS, Section

Numbers = npt.NDArray[np.int64]


def here(kernel: Kernel) -> int:
    """A kernel's address in this process, compiled for this machine."""
    return kernel.address


def placed(program: Program) -> Memory:
    """The weights of a program in memory of their own, which any number of bound ones may share."""
    memory = Memory.of(max(1, len(program.weights)))
    memory.view(len(program.weights))[:] = np.frombuffer(program.weights, np.uint8)
    return memory


class Bound:
    """A program with a workspace of its own: for one run at a time, on any number of threads up to the program's.

    `weights` is what `placed` gave; `place` gives kernels their addresses.
    """

    def __init__(self, program: Program, weights: Memory, place: Callable[[Kernel], int] = here) -> None:
        image = program.image
        self._program, self._weights = program, weights
        self._workspace = Memory.of(program.workspace_bytes)
        held = self._workspace.view(len(image.data))
        held[:] = np.frombuffer(image.data, np.uint8)
        self._image: Numbers = held.view(np.int64)
        at = np.array(image.relocations, np.int64) // 8
        sections, offsets = self._image[at] >> SECTION_BITS, self._image[at] & ((1 << SECTION_BITS) - 1)
        bases = np.zeros(len(Section) + 1, np.int64)
        bases[Section.WEIGHTS], bases[Section.IMAGE] = weights.address, self._workspace.address
        bases[Section.ZEROS] = self._workspace.address + len(image.data)
        bases[Section.BUFFERS] = self._workspace.address + program.buffers_at
        self._image[at] = bases[sections] + offsets
        code = sections == Section.CODE
        self._image[at[code]] = np.array([place(kernel) for kernel in program.kernels], np.int64)[offsets[code]]
        self._outside = [(at[sections == s], offsets[sections == s]) for s in (Section.INPUT, Section.OUTPUT)]
        first, size = self._workspace.address + program.regions_at, len(bytes(Region()))
        self._regions: Sequence[Region] = [Region.from_address(first + i * size) for i in range(program.step_count)]

    def run(self, input: int, output: int, workers: int, times: list[float] | None = None) -> None:
        """Compute from the address of `input` [N, D, H, W, C] to that of `output`, both float32 and contiguous, on up
        to `workers` threads; more than the program's are not used. `times` gets the seconds of each step."""
        for (at, offsets), address in zip(self._outside, (input, output), strict=True):
            self._image[at] = offsets + address
        most = min(workers, self._program.threads)
        for region in self._regions:
            began = perf_counter() if times is not None else 0.0
            threads.start(region, most)
            if times is not None:
                times.append(perf_counter() - began)
