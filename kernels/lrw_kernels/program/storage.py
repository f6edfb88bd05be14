"""Which buffer every node's activations lie in: one of its own, that of an input, or some channels of a wider one."""

from dataclasses import dataclass

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.step import Strides, View, dense_strides, spread_strides
from lrw_kernels.network.graph import Network, Node, Size
from lrw_kernels.network.operators import (
    Affine,
    Binary,
    Channels,
    Concat,
    Direct,
    Linear,
    Normalise,
    Pointwise,
    Winograd,
)
from lrw_kernels.program.memory import Buffer

# Operators that read every number of their inputs, from this one on, before they write the one in its place.
IN_PLACE = {Pointwise: 0, Affine: 0, Binary: 0, Normalise: 0, Winograd: 1, Direct: 1, Linear: 1}


@dataclass
class Root:
    """A buffer for activations of `size`, in use from node `first` to node `last`, in `section`."""

    size: Size
    first: int
    last: int
    section: int

    @property
    def strides(self) -> Strides:
        """The strides in bytes: the caller's buffers are dense."""
        return spread_strides(self.size) if self.section >= Section.BUFFER else dense_strides(self.size, FLOAT)

    @property
    def buffer(self) -> Buffer:
        """This root as `memory.plan` takes it: bytes of float32, and the nodes it is in use for."""
        return Buffer(self.size[0] * self.strides[0], self.first, self.last)


class Storage:
    """Where the activations of `network` lie.

    Inputs and outputs are the caller's, in this order. What is concatenated is computed where it will lie, if it can
    be; what works in place takes over the buffer of an input that nobody needs any more; some channels of an input lie
    where they are.
    """

    def __init__(self, network: Network) -> None:
        self._network, self._last = network, _last_readers(network)
        self._parents = _concatenated(network)
        self.roots: list[Root] = []  # in the workspace
        self._places = {
            name: (Root(size, 0, self._last[name], Section.OUTSIDE + i), 0)
            for i, (name, size) in enumerate(network.inputs.items())
        }
        tops: dict[str, Root] = {}
        for index, node in enumerate(network.nodes):
            top, channel = self._top(node.name)
            within = self._within(node)
            if within is not None:
                root, channel = within
            else:
                root = tops.get(top) or self._taken_over(index, node) or self._new(top, index)
            root.last = max(root.last, self._last.get(node.name, index))
            tops[top], self._places[node.name] = root, (root, channel)

    def view(self, name: str) -> View:
        """The view of what node `name` gives, or of an input: a symbolic address with its strides in bytes."""
        root, channel = self._places[name]
        return View(symbolic(root.section, channel * FLOAT), root.strides, self._network.size(name))

    def _top(self, name: str) -> tuple[str, int]:
        """The widest concatenation that node `name` is part of, or itself, and the node's first channel there."""
        channel = 0
        while name in self._parents:
            name, shift = self._parents[name]
            channel += shift
        return name, channel

    def _within(self, node: Node) -> tuple[Root, int] | None:
        """The place of some channels of an input there, if they need not lie elsewhere."""
        if not isinstance(node.operator, Channels) or node.name in self._parents or node.name in self._network.outputs:
            return None
        root, channel = self._places[node.inputs[0]]
        return root, channel + node.operator.first

    def _taken_over(self, index: int, node: Node) -> Root | None:
        if node.name in self._parents or node.name in self._network.outputs:
            return None
        first = IN_PLACE.get(type(node.operator), len(node.inputs))
        for name in node.inputs[first:]:
            root, _ = self._places[name]
            others = [*node.inputs[:first], *(other for other in node.inputs[first:] if other != name)]
            read = [self._places[other][0] for other in others]
            alone = name not in self._parents and root.section >= Section.BUFFER and root.size == node.size
            if alone and root.last == index and all(root is not other for other in read):
                return root
        return None

    def _new(self, top: str, index: int) -> Root:
        if top in self._network.outputs:
            buffer = len(self._network.inputs) + self._network.outputs.index(top)
            return Root(self._network.size(top), index, index, Section.OUTSIDE + buffer)
        self.roots.append(Root(self._network.size(top), index, index, Section.BUFFER + len(self.roots)))
        return self.roots[-1]


def _last_readers(network: Network) -> dict[str, int]:
    return dict.fromkeys(network.inputs, 0) | {
        n: index for index, node in enumerate(network.nodes) for n in node.inputs
    }


def _concatenated(network: Network) -> dict[str, tuple[str, int]]:
    """Node -> (concatenation, first channel), for those that can be computed there."""
    parents: dict[str, tuple[str, int]] = {}
    apart = {*network.inputs, *network.outputs}
    for node in network.nodes:
        if isinstance(node.operator, Concat):
            channel = 0
            for name in node.inputs:
                if name not in apart and name not in parents:
                    parents[name] = (node.name, channel)
                channel += network.size(name)[4]
    return parents
