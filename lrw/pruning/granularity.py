"""What is kept or dropped as one: blocks of channels at one position."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lrw import checks


@dataclass(frozen=True)
class Granularity:
    """Blocks of `inputs` x `outputs` channels of one position, all of them where None.

    The default is the column, the paper's granularity (Qin, Lin et al., arXiv 2301.11180); blocks of channels are a
    grouped column, ours: their products stay dense. (1, 1) is a single weight. The last block of a row may be smaller.
    Raises ValueError for sizes below 1.
    """

    inputs: int | None = None
    outputs: int | None = None

    def __post_init__(self) -> None:
        for size, name in ((self.inputs, "granularity inputs"), (self.outputs, "granularity outputs")):
            if size is not None:
                checks.check_count(size, name)

    def grid(self, cin: int, cout: int) -> tuple[int, int]:
        """How many blocks there are along input and output channels."""
        return -(-cin // self._size(self.inputs, cin)), -(-cout // self._size(self.outputs, cout))

    def channels(self, cin: int, cout: int) -> tuple[list[slice | None], list[slice]]:
        """The input and the output channels of each block; None: all inputs, which are one."""
        inputs, outputs = (
            [slice(first, min(first + size, count)) for first in range(0, count, size)]
            for size, count in ((self._size(self.inputs, cin), cin), (self._size(self.outputs, cout), cout))
        )
        return [*inputs] if len(inputs) > 1 else [None], outputs

    def sums(self, x: Tensor) -> Tensor:
        """x [K, Cin, Cout] added up in blocks: [K, blocks of inputs, blocks of outputs]."""
        _, cin, cout = x.shape
        size_in, size_out = self._size(self.inputs, cin), self._size(self.outputs, cout)
        blocks_in, blocks_out = self.grid(cin, cout)
        padded = F.pad(x, (0, blocks_out * size_out - cout, 0, blocks_in * size_in - cin))
        return padded.view(-1, blocks_in, size_in, blocks_out, size_out).sum(dim=(2, 4))

    def weights(self, cin: int, cout: int) -> Tensor:
        """How many weights each block has, float64 [blocks of inputs, blocks of outputs]."""
        return self.sums(torch.ones(1, cin, cout, dtype=torch.float64))[0]

    def mask(self, blocks: Tensor, cin: int, cout: int) -> Tensor:
        """`blocks` [T, blocks of inputs, blocks of outputs] as a layer's mask [T, 1 or Cin, 1 or Cout]."""
        for dim, size, count in ((1, self.inputs, cin), (2, self.outputs, cout)):
            if size is not None:
                blocks = blocks.repeat_interleave(min(size, count), dim)[(slice(None),) * dim + (slice(count),)]
        return blocks

    @staticmethod
    def _size(size: int | None, channels: int) -> int:
        return channels if size is None else min(size, channels)


COLUMN = Granularity()
WEIGHT = Granularity(1, 1)
