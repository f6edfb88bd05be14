"""A program: everything of a layer or a network that runs, but its machine code and where its buffers lie."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import whole_lines
from lrw_kernels.cpu.step import Size, Table
from lrw_kernels.network.graph import Node
from lrw_kernels.program.image import Frozen


class Outcome(NamedTuple):
    """A node, and what became of it, for people to read."""

    node: Node
    details: dict[str, Any]


@dataclass(frozen=True)
class Program:
    """Kernels, records and weights, for up to `threads` threads at a time.

    outside: the sizes of the caller's buffers, for a network of its inputs, then its outputs. kernels: in the order of
    their numbers. image: copied to where it runs; `regions_at` is the first record of `step_count`. weights: all
    numbers kernels read as such, but for `held` arrays: these are read where they lie, in this process alone. A
    workspace is image, zeros, then buffers; `layers` says what became of each node.
    """

    name: str
    outside: tuple[Size, ...]
    kernels: tuple[Kernel, ...]
    image: Frozen
    regions_at: int
    step_count: int
    weights: bytes
    held: tuple[Table, ...]
    buffer_bytes: int
    threads: int
    layers: tuple[Outcome, ...]

    @property
    def buffers_at(self) -> int:
        """The byte of a workspace at which its buffers begin: behind the image and the zeros, in whole cache lines."""
        return len(self.image.data) + whole_lines(self.image.zeros)

    @property
    def workspace_bytes(self) -> int:
        """The bytes of a workspace: image, zeros and buffers."""
        return self.buffers_at + self.buffer_bytes
