"""Where buffers lie in the workspace: those that are not needed at the same time share their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass

from lrw_kernels.codegen.machine import whole_lines


@dataclass(frozen=True)
class Buffer:
    """`size` bytes, in use from step `first` to step `last`, both included."""

    size: int
    first: int
    last: int

    def meets(self, other: "Buffer") -> bool:
        """Whether this buffer and `other` are both in use at some step, so that they may share no bytes."""
        return self.first <= other.last and other.first <= self.last


def plan(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offsets, aligned, and the size of all: the largest buffer first, each as low as those it meets leave room.

    Greedy by size, after Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020.
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for i in sorted(range(len(buffers)), key=lambda i: (-buffers[i].size, buffers[i].first, i)):
        taken = sorted((offsets[j], offsets[j] + buffers[j].size) for j in placed if buffers[j].meets(buffers[i]))
        offsets[i] = _lowest(buffers[i].size, taken)
        placed.append(i)
    ends = (offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True))
    return offsets, whole_lines(max(ends, default=0))


def _lowest(size: int, taken: Sequence[tuple[int, int]]) -> int:
    at = 0
    for start, end in taken:
        if at + size <= start:
            return at
        at = max(at, whole_lines(end))
    return at
