"""What goes into a library and comes out of it: buffers of the caller's, a parameter of the C functions each."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from lrw_kernels.aot import abi
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.network.graph import Network, Size


@dataclass(frozen=True)
class Port:
    """A buffer [N, D, H, W, C] of float32: the `name` of its parameter, what the layers call the `node` that it is for,
    its `size`, and its `origin`, which is what it is where the network comes from, "" where nobody knows."""

    name: str
    node: str
    size: Size
    origin: str = ""

    @property
    def floats(self) -> int:
        """How many numbers it holds."""
        return prod(self.size)

    @property
    def bytes(self) -> int:
        """How many bytes these take."""
        return self.floats * FLOAT


class Ports(NamedTuple):
    """Those of a library, in the order of its parameters: inputs, then outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def every(self) -> tuple[Port, ...]:
        """All of them."""
        return self.inputs + self.outputs

    @staticmethod
    def of(network: Network) -> "Ports":
        """Those of the library of `network`."""
        inputs, nodes = len(network.inputs), (*network.inputs, *network.outputs)
        names = abi.parameters("input", inputs) + abi.parameters("output", len(network.outputs))
        every = tuple(map(Port, names, nodes, map(network.size, nodes), network.origins or ("",) * len(nodes)))
        return Ports(every[:inputs], every[inputs:])
