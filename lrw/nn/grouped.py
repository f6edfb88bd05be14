"""The layer that stores and computes kept columns block by block of output channels."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lrw.dispatch import convolve_blocks
from lrw.geometry import Geometry, GroupedLayer, union
from lrw.nn.compressed import CompressedConv3d
from lrw.nn.layer import WinogradLayer
from lrw.nn.winograd import WinogradConv3d
from lrw_kernels.winograd import Block, kept_positions

LEAST = 16  # output channels of a block worth products of its own: a vector


class GroupedConv3d(WinogradLayer):
    """Kept columns for each block of output channels: `blocks` (channels, kept), `weight[i]` [K_i, Cin, channels_i].

    The positions stand in `kept` [K_0 + K_1 + ...] (int64), those of the first block first. Made by `lrw.compress` of
    layers pruned in blocks. On a CPU the forward pass transforms its input once for all blocks. A block without columns
    is its bias alone. The weights can be trained further.
    """

    kept_in = "kept"
    kept: Tensor

    def __init__(
        self, in_channels: int, blocks: Sequence[Block], geometry: Geometry, *, bias: bool, backend: str = "auto",
        **tensor: Any,
    ) -> None:  # fmt: skip
        self._blocks = tuple((channels, tuple(kept)) for channels, kept in blocks)
        outputs = sum(channels for channels, _ in self._blocks)
        geometry = replace(geometry, kept=self._union(geometry), fixed=True)
        super().__init__(in_channels, outputs, geometry, bias=bias, backend=backend, **tensor)
        self.weight = nn.ParameterList(
            torch.zeros(len(kept), in_channels, channels, **tensor) for channels, kept in self._blocks
        )
        positions = [p for _, kept in self._blocks for p in kept]
        self.register_buffer("kept", torch.tensor(positions, device=tensor.get("device"), dtype=torch.int64))
        self.follow()

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Output channels and kept positions of each block."""
        self.follow()
        return self._blocks

    def take_kept(self) -> None:
        """Take each block's positions from `kept`. Raises ValueError where they are not the tile's, in rising order."""
        self._blocks = self._divided(self.kept)
        self.geometry = replace(self._geometry, kept=self._union(self._geometry))

    def _union(self, geometry: Geometry) -> tuple[int, ...]:
        return union((kept for _, kept in self._blocks), geometry.tile)

    def _set_geometry(self, value: Geometry) -> None:
        super()._set_geometry(value)
        self._grouped = GroupedLayer.of(value, self._blocks)

    def _divided(self, kept: Tensor) -> tuple[Block, ...]:
        """`kept` by block. Raises ValueError as `take_kept` does."""
        positions, blocks = kept.tolist(), []
        for channels, before in self._blocks:
            own, positions = positions[: len(before)], positions[len(before) :]
            blocks.append((channels, kept_positions(own, self._geometry.tile) if before else ()))
        return tuple(blocks)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        kept = state_dict.setdefault(prefix + "kept", self.kept)  # of before there was one: made with its blocks
        if kept.shape == self.kept.shape:  # others torch refuses
            self._divided(kept)  # refuse before anything is loaded
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.follow()

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
        for stored, (channels, kept) in zip(self.weight, self._blocks, strict=True):
            part = stored.new_zeros(len(places), self.in_channels, channels)
            whole.append(part.index_copy(0, torch.tensor([places[p] for p in kept], device=part.device).long(), stored))
        return torch.cat(whole, dim=2)

    def forward(self, input: Tensor) -> Tensor:
        """[N, Cin, D, H, W] -> [N, Cout, D', H', W'], or both without N."""
        if input.dim() == 4:
            return self.forward(input[None])[0]
        self.follow()
        weights = tuple(self.weight)
        return convolve_blocks(input, weights, self._checked_bias(weights[0]), self._grouped, self.backend)


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
