"""From a network to what its library holds: kernels, an image of their records, weights, a plan of the workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE, Machine
from lrw_kernels.codegen.records import Record, Region, row
from lrw_kernels.cpu.plan import MOST_SCRATCH
from lrw_kernels.network.graph import Network, Node, Size
from lrw_kernels.program import memory, steps
from lrw_kernels.program.image import Frozen, Image, Section, symbolic
from lrw_kernels.program.storage import Storage

ENOUGH_SCRATCH = 16 << 20  # for V and M of a layer: weights are read again for every block of so many tiles


class Layer(NamedTuple):
    """A node, and what became of it, for people to read."""

    node: Node
    details: dict[str, Any]


@dataclass(frozen=True)
class Assembly:
    """Everything of a library but its machine code.

    kernels: in the order of their numbers. image: copied to the start of the workspace; `regions_at` its first record
    of `step_count`. weights: all numbers kernels read as such. The workspace is image, zeros, then buffers; `layers`
    says what became of each node.
    """

    name: str
    input_size: Size
    output_size: Size
    kernels: tuple[Kernel, ...]
    image: Frozen
    regions_at: int
    step_count: int
    weights: bytes
    buffers_at: int
    workspace_bytes: int
    threads: int
    layers: tuple[Layer, ...]


def assemble(network: Network, machine: Machine, threads: int = 1, element: str = "float32") -> Assembly:
    """The library of `network` for up to `threads` threads at a time, with the Winograd domain in `element`.

    Raises ValueError for numbers of threads below 1, and for weights beyond the range of `element`.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; accepted are integers from 1")
    return Assembler(network, machine, threads, element).assemble()


class Assembler:
    """Collects kernels, weights, tables, records and buffers while nodes are turned into steps."""

    def __init__(self, network: Network, machine: Machine, threads: int, element: str) -> None:
        self.network, self.machine, self.threads, self.element = network, machine, threads, element
        self._kernels: dict[str, tuple[int, Kernel]] = {}
        self._weights = bytearray()
        self._image, self._regions = Image(), list[Region]()
        self._keep: list[Any] = []  # tables and records are found by their addresses: they must not move
        self._storage = Storage(network)
        self._buffers = [root.buffer for root in self._storage.roots]

    def code(self, kernel: Kernel) -> int:
        """The symbolic address of a kernel."""
        number, _ = self._kernels.setdefault(kernel.text, (len(self._kernels), kernel))
        return symbolic(Section.CODE, number)

    def weights(self, data: npt.NDArray[Any]) -> int:
        """The symbolic address of numbers that become part of the weights."""
        at = len(self._weights)
        self._weights += data.tobytes()
        self._weights += bytes(-len(self._weights) % LINE)
        return symbolic(Section.WEIGHTS, at)

    def table(self, table: npt.NDArray[Any]) -> None:
        """Numbers a record refers to by their address: integers become part of the image, floats of the weights."""
        if self._image.knows(table.ctypes.data):
            return
        self._keep.append(table)
        if table.dtype == np.float32:
            self._image.add_elsewhere(table.ctypes.data, table.nbytes, self.weights(table))
        else:
            self._image.add_table(table)

    def zeros(self, array: Any, address: int, size: int) -> None:
        """Zeros a record refers to by their address."""
        self._keep.append(array)
        self._image.add_zeros(address, size)

    def records(self, records: Sequence[Record]) -> None:
        """Records that lie one after the other, for which others hold their addresses."""
        if not self._image.knows(records[0].address):
            self._keep.append(records)
            self._image.add_records(records)

    def step(self, region: Region) -> None:
        """The next parallel region."""
        self._regions.append(region)

    def scratch(self, index: int, size: int) -> int:
        """The symbolic address of `size` bytes for the steps of node `index` alone."""
        self._buffers.append(memory.Buffer(size, index, index))
        return symbolic(Section.BUFFER + len(self._buffers) - 1)

    def spare(self, index: int) -> int:
        """Bytes of scratch node `index` may have without the workspace growing, or some that are enough.

        The workspace is as large as the activations at the worst moment; what others leave of it is there anyway.
        """
        roots = [root.buffer for root in self._storage.roots]
        live = [sum(b.size for b in roots if b.first <= i <= b.last) for i in range(len(self.network.nodes))]
        return min(MOST_SCRATCH, max(ENOUGH_SCRATCH, max(live) - live[index]))

    def assemble(self) -> Assembly:
        """All nodes, in turn."""
        layers = tuple(self._layer(index, node) for index, node in enumerate(self.network.nodes))
        regions = row(self._regions)
        regions_at = self._image.add_records(regions)
        places, size = memory.plan(self._buffers)
        image = self._image.freeze(places)
        buffers_at = len(image.data) + -(-image.zeros // LINE) * LINE
        kernels = tuple(kernel for _, kernel in self._kernels.values())
        sizes = self.network.input_size, self.network.output.size
        return Assembly(
            self.network.name, *sizes, kernels, image, regions_at, len(regions), bytes(self._weights), buffers_at,
            buffers_at + size, self.threads, layers,
        )  # fmt: skip

    def _layer(self, index: int, node: Node) -> Layer:
        before, weights = len(self._regions), len(self._weights)
        inputs = [self._storage.view(name) for name in node.inputs]
        details = steps.add(self, index, node, inputs, self._storage.view(node.name))
        used = {"steps": len(self._regions) - before, "weights_bytes": len(self._weights) - weights}
        return Layer(node, {**details, **used})
