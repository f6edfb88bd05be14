"""A network becomes a program: views of its activations, the steps of each node, one collector for all of them."""

from collections.abc import Sequence
from functools import partial

from lrw_kernels.codegen.machine import Machine
from lrw_kernels.cpu.step import Sums
from lrw_kernels.cpu.winograd.plan import Planner, planned
from lrw_kernels.cpu.winograd.problem import MOST_SCRATCH
from lrw_kernels.network.graph import Network
from lrw_kernels.network.operators import Normalise
from lrw_kernels.program import steps
from lrw_kernels.program.collect import Collector
from lrw_kernels.program.means import Means
from lrw_kernels.program.memory import Buffer
from lrw_kernels.program.program import Outcome, Program
from lrw_kernels.program.storage import Storage

ENOUGH_SCRATCH = 16 << 20  # for V and M of a layer: weights are read again for every turn of so many tiles


def assemble(
    network: Network,
    machine: Machine,
    threads: int = 1,
    element: str = "float32",
    planner: Planner = planned,
    *,
    in_place: bool = False,
) -> Program:
    """The program of `network` for up to `threads` threads at a time, with the Winograd domain in `element` and its
    layers as `planner` cuts them up.

    `in_place`: for this process, with the weights of linear layers read where `network` has them, and those in panels
    shared by all programs that have the same. Raises ValueError for
    numbers of threads below 1, and for weights beyond the range of `element`.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; accepted are integers from 1")
    storage = Storage(network)
    roots = [root.buffer for root in storage.roots]
    to, layers, sums = Collector(threads, roots, in_place=in_place), list[Outcome](), dict[str, Sums | None]()
    # Of those that read an output, the last one: sums stay until then.
    norms = {node.inputs[0]: i for i, node in enumerate(network.nodes) if isinstance(node.operator, Normalise)}
    for index, (node, spare) in enumerate(zip(network.nodes, _spare(roots, len(network.nodes)), strict=True)):
        inputs, output = [storage.view(name) for name in node.inputs], storage.view(node.name)
        keep = partial(to.buffer, first=index, last=norms[node.name]) if node.name in norms else None
        means = Means(machine, threads, element, spare, planner, in_place, keep)
        made = steps.of(node.operator, inputs, output, means, sums.get(node.inputs[0]))
        sums[node.name] = made.sums
        layers.append(Outcome(node, made.details | to.add(index, made)))
    outside = *network.inputs.values(), *map(network.size, network.outputs)
    return to.program(network.name, outside, tuple(layers))


def _spare(roots: Sequence[Buffer], nodes: int) -> list[int]:
    """Bytes of scratch each node may have without the workspace growing, or some that are enough.

    The workspace is as large as the activations at the worst moment; what others leave of it is there anyway.
    """
    live = [sum(b.size for b in roots if b.first <= i <= b.last) for i in range(nodes)]
    return [min(MOST_SCRATCH, max(ENOUGH_SCRATCH, max(live) - alive)) for alive in live]
