"""From a network to what its library holds: kernels, an image of their records, weights, a plan of the workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE, Machine
from lrw_kernels.codegen.records import row
from lrw_kernels.cpu.plan import MOST_SCRATCH
from lrw_kernels.network.graph import Network, Node, Size
from lrw_kernels.program import memory, steps
from lrw_kernels.program.collect import Collector
from lrw_kernels.program.image import Frozen
from lrw_kernels.program.memory import Buffer
from lrw_kernels.program.storage import Storage

ENOUGH_SCRATCH = 16 << 20  # for V and M of a layer: weights are read again for every block of so many tiles


class Layer(NamedTuple):
    """A node, and what became of it, for people to read."""

    node: Node
    details: dict[str, Any]


@dataclass(frozen=True)
class Program:
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


def assemble(network: Network, machine: Machine, threads: int = 1, element: str = "float32") -> Program:
    """The library of `network` for up to `threads` threads at a time, with the Winograd domain in `element`.

    Raises ValueError for numbers of threads below 1, and for weights beyond the range of `element`.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; accepted are integers from 1")
    storage = Storage(network)
    roots = [root.buffer for root in storage.roots]
    to = Collector(machine, threads, element, roots, _spare(roots, len(network.nodes)))
    layers = tuple(_layer(to, storage, index, node) for index, node in enumerate(network.nodes))
    regions = row(to.regions)
    regions_at = to.image.add_records(regions)
    places, size = memory.plan(to.buffers)
    image = to.image.freeze(places)
    buffers_at = len(image.data) + -(-image.zeros // LINE) * LINE
    sizes = network.input_size, network.output.size
    return Program(
        network.name, *sizes, to.kernels, image, regions_at, len(regions), bytes(to.blob), buffers_at,
        buffers_at + size, threads, layers,
    )  # fmt: skip


def _layer(to: Collector, storage: Storage, index: int, node: Node) -> Layer:
    before, weights = len(to.regions), len(to.blob)
    details = steps.add(to, index, node, [storage.view(name) for name in node.inputs], storage.view(node.name))
    used = {"steps": len(to.regions) - before, "weights_bytes": len(to.blob) - weights}
    return Layer(node, {**details, **used})


def _spare(roots: Sequence[Buffer], nodes: int) -> list[int]:
    """Bytes of scratch each node may have without the workspace growing, or some that are enough.

    The workspace is as large as the activations at the worst moment; what others leave of it is there anyway.
    """
    live = [sum(b.size for b in roots if b.first <= i <= b.last) for i in range(nodes)]
    return [min(MOST_SCRATCH, max(ENOUGH_SCRATCH, max(live) - alive)) for alive in live]
