"""Blocks of output channels that keep positions of their own, one after the other."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from lrw.activations import compute_dtype
from lrw.backends.epilogue import Epilogue
from lrw.geometry import Geometry
from lrw_kernels.winograd import Block

Forward = Callable[[Tensor, Tensor, Geometry, Epilogue], Tensor]  # a backend's


def block_by_block(
    forward: Forward,
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    geometry: Geometry,
    blocks: tuple[Block, ...],
) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and weights [K_i, Cin, channels_i], each block by `forward`.

    A block without columns is its bias alone.
    """
    biases = [None] * len(blocks) if bias is None else bias.split([channels for channels, _ in blocks])
    parts = []
    for u, own, (channels, kept) in zip(weights, biases, blocks, strict=True):
        if kept:
            parts.append(forward(x, u, _part(geometry, kept), Epilogue(own)))
            continue
        shape = (x.shape[0], *geometry.output_size(x.shape[1:4]), channels)
        parts.append(Epilogue(own).apply(x.new_zeros(shape, dtype=compute_dtype(x.dtype))))
    return torch.cat(parts, dim=4)


@lru_cache(maxsize=1024)
def _part(geometry: Geometry, kept: tuple[int, ...]) -> Geometry:
    return replace(geometry, kept=kept)
