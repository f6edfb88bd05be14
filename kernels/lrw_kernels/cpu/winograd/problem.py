"""What is computed: a Winograd layer on activations of one size."""

from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any

from lrw_kernels.codegen.machine import MIB, Machine
from lrw_kernels.winograd import Block, Tile
from lrw_kernels.winograd.tile import Triple

FORWARD, INPUT_GRAD, WEIGHT_GRAD = "forward", "input_grad", "weight_grad"  # the passes of a problem
MOST_SCRATCH = 48 * MIB  # V and M together, whatever the layer


@dataclass(frozen=True, eq=False)
class Problem:
    """A layer on activations of one size. `kind` is their dtype, `element` that of the arithmetic and the weights;
    `fixed` says that the kept set will not change, so that code for just this set pays, and `sized` the same of the
    sizes: ahead of time it does. `blocks` of output channels, where given, keep positions of their own, all of them
    among `kept`; only the forward pass knows them, as `parts`, of which `first` is the first output channel. `aligned`
    says that outputs lie at addresses of whole cache lines, so that they can be written past the caches.
    `most_scratch` bounds V and M in bytes."""

    tile: str
    padding: Triple
    kept: tuple[int, ...] | None
    fixed: bool
    batch: int
    input_size: Triple
    cin: int
    cout: int
    kind: str
    element: str
    machine: Machine
    threads: int
    sized: bool = False
    blocks: tuple[Block, ...] | None = None
    first: int = 0
    aligned: bool = True
    most_scratch: int = MOST_SCRATCH
    passes: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)  # by `program.layer`

    @cached_property
    def columns(self) -> int:
        """K, the number of kept positions."""
        return Tile.parse(self.tile).positions if self.kept is None else len(self.kept)

    @cached_property
    def parts(self) -> tuple["Problem", ...]:
        """The blocks as problems of their own, or the whole as one."""
        if self.blocks is None:
            return (self,)
        firsts = accumulate((channels for channels, _ in self.blocks), initial=0)
        return tuple(
            replace(self, cout=channels, first=first, kept=kept, fixed=False, blocks=None)
            for (channels, kept), first in zip(self.blocks, firsts, strict=False)
        )

    @cached_property
    def output_size(self) -> Triple:
        """The size [D', H', W'] of the layer's output."""
        return Tile.parse(self.tile).output_size(self.input_size, self.padding)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of U in panels, as the forward pass reads it."""
        return self._panel_bytes(self.cin, self.cout)

    @cached_property
    def adjoint_weight_bytes(self) -> int:
        """Bytes of U^T in panels, as the gradient with respect to the input reads it."""
        return self._panel_bytes(self.cout, self.cin)

    def _panel_bytes(self, terms: int, outputs: int) -> int:
        return self.columns * terms * self.machine.vectors_of(outputs, self.element) * self.machine.vector_bytes


@lru_cache(maxsize=1024)
def of(
    tile: str,
    padding: Triple,
    kept: tuple[int, ...] | None,
    fixed: bool,
    batch: int,
    input_size: Triple,
    channels: tuple[int, int],
    kind: str,
    machine: Machine,
    threads: int,
    blocks: tuple[Block, ...] | None = None,
) -> Problem:
    """The problem of these values, one object for all calls; `channels` are (Cin, Cout)."""
    element = "float64" if kind == "float64" else "float32"
    return Problem(
        tile, padding, kept, fixed, batch, input_size, *channels, kind, element, machine, threads, blocks=blocks
    )
