"""A network: operators in the order they are computed, of fixed sizes, without control flow."""

from dataclasses import dataclass
from math import prod

from lrw_kernels.network.operators import Operator

Size = tuple[int, int, int, int, int]
INPUT = "input"


@dataclass(frozen=True, eq=False)
class Node:
    """An operator at its place: `name` is unique, `inputs` name earlier nodes or the network's input, `size` is what
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
    """Nodes in the order they are computed; the last one's activations are the output.

    Raises ValueError for a network without nodes, a node that is there twice or refers to one that is not there yet.
    """

    name: str
    input_size: Size
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes:
            raise ValueError("network: nothing is computed; accepted is one operator at least")
        known = {INPUT}
        for node in self.nodes:
            unknown = [name for name in node.inputs if name not in known]
            if unknown:
                raise ValueError(f"node {node.name}: its input {unknown[0]!r} is not computed before it")
            if node.name in known:
                raise ValueError(f"node {node.name}: is there twice")
            known.add(node.name)

    @property
    def output(self) -> Node:
        """The last node, whose activations are the network's output."""
        return self.nodes[-1]

    def size(self, name: str) -> Size:
        """The size of a node's activations, or of the input."""
        return self.input_size if name == INPUT else next(node.size for node in self.nodes if node.name == name)
