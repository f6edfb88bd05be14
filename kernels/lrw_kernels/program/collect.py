"""What a program is put together from: kernels, weights, tables, records, regions and buffers, as steps come in."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE, Machine
from lrw_kernels.codegen.records import Record, Region
from lrw_kernels.cpu.operators.step import Step
from lrw_kernels.program.image import Image, Section, symbolic
from lrw_kernels.program.memory import Buffer


class Collector:
    """Gives everything that is put in the symbolic address it has in a program for up to `threads` threads.

    element: the numbers of the Winograd domain. spare: for each node the bytes of scratch it may have without the
    workspace growing. `buffers` begins with those of the activations.
    """

    def __init__(
        self, machine: Machine, threads: int, element: str, buffers: Sequence[Buffer], spare: Sequence[int]
    ) -> None:
        self.machine, self.threads, self.element, self.spare = machine, threads, element, spare
        self.buffers, self.regions, self.image = list(buffers), list[Region](), Image()
        self.blob = bytearray()  # of weights
        self._kernels: dict[str, tuple[int, Kernel]] = {}
        self._keep: list[Any] = []  # tables and records are found by their addresses: they must not move

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        """In the order of their numbers."""
        return tuple(kernel for _, kernel in self._kernels.values())

    def code(self, kernel: Kernel) -> int:
        """The symbolic address of a kernel."""
        number, _ = self._kernels.setdefault(kernel.text, (len(self._kernels), kernel))
        return symbolic(Section.CODE, number)

    def weights(self, data: npt.NDArray[Any]) -> int:
        """The symbolic address of numbers that become part of the weights."""
        at = len(self.blob)
        self.blob += data.tobytes()
        self.blob += bytes(-len(self.blob) % LINE)
        return symbolic(Section.WEIGHTS, at)

    def table(self, table: npt.NDArray[Any]) -> None:
        """Numbers a record refers to by their address: integers become part of the image, floats of the weights."""
        if self.image.knows(table.ctypes.data):
            return
        self._keep.append(table)
        if table.dtype == np.float32:
            self.image.add_elsewhere(table.ctypes.data, table.nbytes, self.weights(table))
        else:
            self.image.add_table(table)

    def zeros(self, array: Any, address: int, size: int) -> None:
        """Zeros a record refers to by their address."""
        self._keep.append(array)
        self.image.add_zeros(address, size)

    def records(self, records: Sequence[Record]) -> None:
        """Records that lie one after the other, for which others hold their addresses."""
        if not self.image.knows(records[0].address):
            self._keep.append(records)
            self.image.add_records(records)

    def step(self, region: Region) -> None:
        """The next parallel region."""
        self.regions.append(region)

    def scratch(self, index: int, size: int) -> int:
        """The symbolic address of `size` bytes for the steps of node `index` alone."""
        self.buffers.append(Buffer(size, index, index))
        return symbolic(Section.BUFFER + len(self.buffers) - 1)

    def run(self, index: int, made: Sequence[Step]) -> None:
        """Parallel regions of the steps of node `index`, which follow one another and so may share scratch."""
        each = max((step.scratch_bytes for step in made), default=0)
        scratch = self.scratch(index, each * self.threads) if each else 0
        for step in made:
            for table in step.tables:
                self.table(table)
            self.records([step.record])
            region = Region(kernel=self.code(step.kernel), job=step.record.address, items=step.items, chunk=1)
            region.set(scratch=scratch, scratch_bytes=step.scratch_bytes, workers=self.threads)
            self.step(region)
