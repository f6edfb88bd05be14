"""The layer that stores and computes kept columns block by block of output channels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lrw.dispatch import convolve_blocks
from lrw.geometry import Geometry
from lrw.nn.compressed import CompressedConv3d
from lrw.nn.layer import WinogradLayer
from lrw.nn.winograd import WinogradConv3d
from lrw.ops import domain_conv3d
from lrw_kernels.winograd import Block, kept_positions

LEAST = 16  # output channels of a block worth products of its own: a vector


class GroupedConv3d(WinogradLayer):
    """Kept columns for each block of output channels: `blocks` (channels, kept), `weight[i]` [K_i, Cin, channels_i].

    Made by `lrw.compress` of layers pruned in blocks. Inference on a CPU is one pass with one input transform; else
    each block is computed as a compressed layer of its own on the same input. A block without columns is its bias
    alone. The weights can be trained further.
    """

    def __init__(
        self, in_channels: int, blocks: Sequence[Block], geometry: Geometry, *, bias: bool, backend: str = "auto",
        **tensor: Any,
    ) -> None:  # fmt: skip
        self.blocks = tuple((channels, tuple(kept)) for channels, kept in blocks)
        union = kept_positions(sorted({p for _, kept in self.blocks for p in kept}), geometry.tile)
        outputs = sum(channels for channels, _ in self.blocks)
        super().__init__(
            in_channels, outputs, replace(geometry, kept=union, fixed=True), bias=bias, backend=backend, **tensor
        )
        self.weight = nn.ParameterList(
            torch.zeros(len(kept), in_channels, channels, **tensor) for channels, kept in self.blocks
        )
        parts = [replace(self.geometry, kept=kept) if kept else None for _, kept in self.blocks]
        self._parts = [None if part is None else part.arguments for part in parts]

    @classmethod
    def of(cls, layer: WinogradLayer, blocks: Sequence[Block]) -> "GroupedConv3d":
        """The compressed form of a layer whose output channels keep different columns; computes the same function."""
        weight = layer.weights().detach()
        tensor = {"device": weight.device, "dtype": weight.dtype}
        new = cls(
            layer.in_channels, blocks, layer.geometry, bias=layer.bias is not None, backend=layer.backend, **tensor
        )
        places, first = {p: i for i, p in enumerate(layer.geometry.positions)}, 0
        with torch.no_grad():
            for stored, (channels, kept) in zip(new.weight, new.blocks, strict=True):
                stored.copy_(weight[[places[p] for p in kept], :, first : first + channels])
                first += channels
        new.weight.requires_grad_(layer.trains_weights)
        return new._take_bias(layer)

    def weights(self) -> Tensor:
        """U [K, Cin, Cout] on all columns any block keeps, zero where a block does not."""
        places = {p: i for i, p in enumerate(self.geometry.positions)}
        whole = []
        for stored, (channels, kept) in zip(self.weight, self.blocks, strict=True):
            part = stored.new_zeros(len(places), self.in_channels, channels)
            whole.append(part.index_copy(0, torch.tensor([places[p] for p in kept], device=part.device).long(), stored))
        return torch.cat(whole, dim=2)

    def forward(self, input: Tensor) -> Tensor:
        """[N, Cin, D, H, W] -> [N, Cout, D', H', W']."""
        y = convolve_blocks(input, tuple(self.weight), self.bias, self._layer, self.blocks, self.backend)
        return self._block_by_block(input) if y is None else y

    def _block_by_block(self, input: Tensor) -> Tensor:
        biases = [None] * len(self.blocks) if self.bias is None else self.bias.split([n for n, _ in self.blocks])
        parts = []
        for part, u, bias in zip(self._parts, self.weight, biases, strict=True):
            if part is not None:
                parts.append(domain_conv3d(input, u, bias, part, self.backend))
                continue
            size = self.geometry.output_size(input.shape[2:])
            empty = input.new_zeros(input.shape[0], u.shape[2], *size)
            parts.append(empty if bias is None else empty + bias.to(empty.dtype).view(1, -1, 1, 1, 1))
        return torch.cat(parts, dim=1)


def compressed(layer: WinogradLayer) -> WinogradLayer:
    """The compressed form of any Winograd layer: in blocks where its mask has some that are large enough."""
    blocks = output_blocks(layer)
    return CompressedConv3d.of(layer) if len(blocks) == 1 else GroupedConv3d.of(layer, blocks)


def output_blocks(layer: WinogradLayer) -> tuple[Block, ...]:
    """Runs of output channels that keep the same columns, as `compress` stores them; one where runs are short."""
    if isinstance(layer, GroupedConv3d):
        return layer.blocks
    whole = ((layer.out_channels, layer.geometry.positions),)
    if not isinstance(layer, WinogradConv3d) or layer.mask.shape[1] != 1 or layer.mask.shape[2] == 1:
        return whole
    values, counts = layer.mask[:, 0].unique_consecutive(dim=1, return_counts=True)
    if len(counts) == 1 or int(counts[:-1].min()) < LEAST:  # the last block is what is left
        return whole
    kept = [tuple(int(p) for p in column.nonzero().flatten()) for column in values.T]
    return tuple(zip(counts.tolist(), kept, strict=True))
