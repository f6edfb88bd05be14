"""What a program is put together from: kernels, weights, tables, records, regions and buffers, as steps come in."""

from collections.abc import Sequence

import numpy as np

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE
from lrw_kernels.codegen.records import Record, Region
from lrw_kernels.codegen.references import SECTION_BITS, Section, section_of, symbolic
from lrw_kernels.cpu.step import Held, Job, Reference, Size, Steps, Table, Zeros
from lrw_kernels.program import memory
from lrw_kernels.program.image import Image
from lrw_kernels.program.memory import Buffer
from lrw_kernels.program.program import Outcome, Program


class Collector:
    """Gives everything that steps refer to the symbolic address it has in a program for up to `threads` threads.

    `buffers` begins with those of the activations. `in_place`: the program runs in this process, where held arrays lie.
    """

    def __init__(self, threads: int, buffers: Sequence[Buffer] = (), *, in_place: bool = False) -> None:
        self._threads, self._buffers, self._in_place = threads, list(buffers), in_place
        self._regions, self._image = list[Region](), Image()
        self._weights = bytearray()
        self._kernels: dict[str, tuple[int, Kernel]] = {}
        self._tables: dict[int, tuple[int, Table]] = {}  # by identity; kept, so that it stays theirs
        self._held: dict[int, tuple[int, Table]] = {}  # by identity

    def buffer(self, size: int, first: int, last: int) -> int:
        """The symbolic address of so many bytes, in use from node `first` to node `last`."""
        self._buffers.append(Buffer(size, first, last))
        return symbolic(Section.BUFFER + len(self._buffers) - 1)

    def add(self, index: int, made: Steps) -> dict[str, int]:
        """Add the steps of node `index`, which share scratch because one follows another; returns how many there are
        and the bytes of their weights."""
        before, weights = len(self._regions), len(self._weights)
        slices = max((step.scratch_bytes for step in made.steps), default=0) * self._threads
        scratch = self.buffer(slices + made.shared, index, index) if slices + made.shared else 0
        for step in made.steps:
            kernel, job = self._code(step.kernel), self._records([step.job], scratch + slices)
            own = scratch if step.scratch_bytes else 0
            self._regions.append(Region(kernel, job, step.items, own, step.scratch_bytes, self._threads))
        return {"steps": len(self._regions) - before, "weights_bytes": len(self._weights) - weights}

    def program(self, name: str, outside: tuple[Size, ...], layers: tuple[Outcome, ...] = ()) -> Program:
        """The program of all that was added; its regions come last in the image."""
        regions_at = self._image.add_records(self._regions) & ((1 << SECTION_BITS) - 1)
        places, size = memory.plan(self._buffers)
        kernels = tuple(kernel for _, kernel in self._kernels.values())
        image, count = self._image.freeze(places), len(self._regions)
        weights, held = bytes(self._weights), tuple(array for _, array in self._held.values())
        return Program(name, outside, kernels, image, regions_at, count, weights, held, size, self._threads, layers)

    def _code(self, kernel: Kernel) -> int:
        number, _ = self._kernels.setdefault(kernel.text, (len(self._kernels), kernel))
        return symbolic(Section.CODE, number)

    def _records(self, jobs: Sequence[Job], shared: int) -> int:
        """The symbolic address of jobs' records, one after the other; what steps share lies at `shared`."""
        return self._image.add_records([self._resolved(job, shared) for job in jobs])

    def _resolved(self, job: Job, shared: int) -> Record:
        record: Record = job.record.copy()
        record.set(**{name: self._address(to, shared) for name, to in job.refers.items()})
        for name in record.addresses:
            if section_of(getattr(record, name)) == Section.SHARED:
                setattr(record, name, getattr(record, name) - symbolic(Section.SHARED) + shared)
        return record

    def _address(self, to: Reference, shared: int) -> int:
        if isinstance(to, Kernel):
            return self._code(to)
        if isinstance(to, Zeros):
            return self._image.add_zeros(to.size)
        if isinstance(to, int):
            return to
        if isinstance(to, Held):
            return self._hold(to.array) if self._in_place else self._table(to.array)
        return self._table(to) if isinstance(to, np.ndarray) else self._records(to, shared)

    def _table(self, table: Table) -> int:
        """The symbolic address of `table`, added once: integers go into the image, other numbers into the weights."""
        if id(table) not in self._tables:
            integers = table.dtype.kind == "i"
            self._tables[id(table)] = self._image.add_table(table.tobytes()) if integers else self._number(table), table
        return self._tables[id(table)][0]

    def _hold(self, array: Table) -> int:
        """The symbolic address of `array`, which the program lists once."""
        number, _ = self._held.setdefault(id(array), (len(self._held), array))
        return symbolic(Section.HELD, number)

    def _number(self, table: Table) -> int:
        at = len(self._weights)
        self._weights += table.tobytes()
        self._weights += bytes(-len(self._weights) % LINE)
        return symbolic(Section.WEIGHTS, at)
