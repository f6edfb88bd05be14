"""A network: operators in the order they are computed, of fixed sizes, without control flow."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

from lrw_kernels.network.operators import Operator

Size = tuple[int, int, int, int, int]
INPUT = "input"
FLOAT = 4  # bytes of an activation


@dataclass(frozen=True, eq=False)
class Node:
    """An operator at its place: `name` is unique, `inputs` name earlier nodes or inputs of the network, `size` is what
    comes out."""

    name: str
    operator: Operator
    inputs: tuple[str, ...]
    size: Size

    @property
    def numbers(self) -> int:
        """How many numbers the node's output has: N * D * H * W * C."""
        return prod(self.size)


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes in the order they are computed; `inputs` names what goes in, with its size, `outputs` the nodes whose
    activations come out. `origins` says what the inputs, then the outputs, are where the network comes from; it is
    empty where nobody knows.

    Raises ValueError for a network without nodes or outputs, a node that is there twice or refers to one that is not
    there yet, and an output that is no node or is there twice.
    """

    name: str
    inputs: Mapping[str, Size]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]
    origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.nodes or not self.outputs:
            raise ValueError("network: nothing is computed; accepted is one operator at least")
        known = {*self.inputs}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ValueError(f"node {node.name}: its input {unknown[0]!r} is not computed before it")
            if node.name in known:
                raise ValueError(f"node {node.name}: is there twice")
            known.add(node.name)
        missing = [name for name in self.outputs if name in self.inputs or name not in known]
        if missing:
            raise ValueError(f"network: its output {missing[0]!r} is not computed")
        if self.origins and len(self.origins) != len(self.inputs) + len(self.outputs):
            ends = f"{len(self.inputs)} inputs and {len(self.outputs)} outputs"
            raise ValueError(f"network: {len(self.origins)} origins; accepted are none, or those of {ends}")
        twice = [name for name in self.outputs if self.outputs.count(name) > 1]
        if twice:
            raise ValueError(f"network: its output {twice[0]!r} is there twice")

    @staticmethod
    def single(name: str, size: Size, nodes: tuple[Node, ...]) -> "Network":
        """A network of one input, called INPUT, whose output is the last node's."""
        return Network(name, {INPUT: size}, nodes, tuple(node.name for node in nodes[-1:]))

    @property
    def input_size(self) -> Size:
        """The size of the first input."""
        return next(iter(self.inputs.values()))

    @property
    def output(self) -> Node:
        """The node of the first output."""
        return next(node for node in self.nodes if node.name == self.outputs[0])

    def moved_bytes(self, node: Node) -> int:
        """The bytes of the activations that `node` reads and writes, each counted once."""
        return FLOAT * (node.numbers + sum(prod(self.size(name)) for name in {*node.inputs}))

    def size(self, name: str) -> Size:
        """The size of a node's activations, or of an input."""
        if name in self.inputs:
            return self.inputs[name]
        return next(node.size for node in self.nodes if node.name == name)
