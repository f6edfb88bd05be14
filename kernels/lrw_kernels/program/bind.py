"""A program bound to addresses of this process: its image with addresses where symbols were, ready to run.

What a library does at each start (`aot.kernels.begin_function`) is done once here, but for the caller's buffers.
"""

from collections.abc import Sequence
from ctypes import sizeof
from time import perf_counter

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen import threads
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.crew import compile_all
from lrw_kernels.codegen.records import Region
from lrw_kernels.codegen.references import SECTION_BITS, Section
from lrw_kernels.program.program import Program

Numbers = npt.NDArray[np.int64]


def placed(program: Program) -> Memory:
    """The weights of a program in memory of their own, which any number of bound ones may share."""
    memory = Memory.of(max(1, len(program.weights)))
    memory.view(len(program.weights))[:] = np.frombuffer(program.weights, np.uint8)
    return memory


class Bound:
    """A program with an image of its own: for one run at a time, on any number of threads up to the program's.

    `weights` is what `placed` gave. Kernels are compiled for this machine where they are not there yet. `regions` are
    its steps.
    """

    def __init__(self, program: Program, weights: Memory) -> None:
        compile_all(program.kernels)
        data = np.frombuffer(program.image.data, np.uint8)
        self._weights, self._held = weights, program.held  # their memory stays
        self._memory = Memory.of(program.buffers_at)  # the image, and zeros behind it
        image = self._memory.view(len(data))
        image[:] = data
        self._image: Numbers = image.view(np.int64)
        at = np.array(program.image.relocations, np.int64) // 8
        sections, offsets = self._image[at] >> SECTION_BITS, self._image[at] & ((1 << SECTION_BITS) - 1)
        start = self._memory.address
        for section, base in (
            (Section.IMAGE, start),
            (Section.ZEROS, start + len(data)),
            (Section.WEIGHTS, weights.address),
        ):
            self._image[at[sections == section]] = base + offsets[sections == section]
        for section, addresses in (
            (Section.CODE, [kernel.address for kernel in program.kernels]),
            (Section.HELD, [array.ctypes.data for array in program.held]),
        ):
            numbered = sections == section
            self._image[at[numbered]] = np.array(addresses, np.int64)[offsets[numbered]]
        later = (sections == Section.BUFFERS) | (sections >= Section.OUTSIDE)
        self._at, self._offsets = at[later], offsets[later]
        self._which = np.maximum(sections[later] - Section.OUTSIDE + 1, 0)  # the buffers, then those of the caller
        self._bases: tuple[int, ...] = ()
        self._first, size = start + program.regions_at, sizeof(Region)
        self.regions = [Region.from_address(self._first + i * size) for i in range(program.step_count)]
        counts = self._image[program.regions_at // 8 :][: program.step_count * size // 8].reshape(-1, size // 8)
        self._counts = counts[:, [name for name, *_ in Region._fields_].index("arrived") :]  # and next
        self._threads = min(program.threads, max((region.items for region in self.regions), default=1))

    def run(self, buffers: int, outside: Sequence[int], workers: int, times: list[float] | None = None) -> None:
        """Compute on up to `workers` threads; more than the program's are not used.

        `buffers` is the address of the program's `buffer_bytes`, a multiple of 64, `outside` those of the caller's
        buffers in their order: for a network inputs, then outputs, [N, D, H, W, C] float32 and contiguous. `times` gets
        the seconds of each step.
        """
        bases = (buffers, *outside)
        if bases != self._bases:
            self._image[self._at] = self._offsets + np.array(bases, np.int64)[self._which]
            self._bases = bases
        most = min(workers, self._threads)
        if times is None:
            self._counts[:] = 0
            threads.start_all(self._first, len(self.regions), most)
            return
        for region in self.regions:
            began = perf_counter()
            threads.start(region, most)
            times.append(perf_counter() - began)
