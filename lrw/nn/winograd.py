"""The layer trained in the Winograd domain, with the mask that says what of it is kept."""

from collections.abc import Sequence
from dataclasses import replace
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import Geometry
from lrw.nn import units as counting
from lrw.nn.layer import WinogradLayer
from lrw.ops import TileLike, kept_index, padding_sizes, transform_weight
from lrw_kernels.winograd import Tile, kept_positions


class WinogradConv3d(WinogradLayer):
    """A 3D convolution whose weights live in the Winograd domain: `weight` [T, Cin, Cout], all of them trainable.

    `mask`, a persistent bool buffer [T, 1 or Cin, 1 or Cout], says which weights are kept; a column of which none is
    stays stored but is not computed. With free or pruned weights this is no convolution: tile, origin and padding
    belong to what it computes. `rectified` makes it a Winograd-ReLU layer (see `lrw.rectify`).

    `units` says in what rows of `weight` are counted, so that one learning rate suits all of them: "none" (they are
    those of U) or "importance" (U = scale * weight with scale 1 / F_p, in which each position moves the outputs
    equally: at F(4,3) F differs by 24 times; ours). The buffer `scale` is saved with the weights: they are not loaded
    where they would be counted in other units. Raises ValueError for channels, tiles, kernel sizes, paddings and units
    that are not accepted.
    """

    kept_in = "mask"
    mask: Tensor
    scale: Tensor | None
    units: str
    computes_all = False  # also columns that are dropped, as zeros: for whoever wants their gradients
    _holes = False  # whether kept columns have weights that are not

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int] = 3,
        *,
        padding: int | str | Sequence[int] = 0,
        tile: TileLike = 2,
        bias: bool = True,
        rectified: bool = False,
        units: str = "none",
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        counting.check(units, counting.DIAGONAL)
        chosen = Tile.of(tile, kernel_size)
        geometry = Geometry(chosen, padding_sizes(padding, chosen.kernel_size), rectified=rectified)
        super().__init__(in_channels, out_channels, geometry, bias=bias, backend=backend, device=device, dtype=dtype)
        spatial = torch.empty(out_channels, in_channels, *chosen.kernel_size, device=device, dtype=dtype)
        nn.init.kaiming_uniform_(spatial, a=sqrt(5))  # nn.Conv3d's own start, then transformed
        u, scale = transform_weight(spatial, chosen).to(spatial.dtype), counting.scale(chosen, units)
        self.weight = nn.Parameter(counting.counted(u, scale))
        self.register_buffer("mask", torch.ones(chosen.positions, 1, 1, dtype=torch.bool, device=device))
        self.units = units
        self.register_buffer("scale", None if scale is None else scale.to(self.weight))
        self.follow()

    @classmethod
    def from_conv3d(
        cls, conv: nn.Conv3d, tile: TileLike = 2, backend: str = "auto", units: str = "none"
    ) -> "WinogradConv3d":
        """The layer that computes what `conv` does. Raises ValueError where Winograd does not apply."""
        reason = checks.unsuited(conv)
        if reason is not None:
            raise ValueError(f"conv: {reason}")
        layer = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            padding=conv.padding,
            tile=tile,
            bias=conv.bias is not None,
            units=units,
            backend=backend,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        with torch.no_grad():
            layer.weight.copy_(layer._counted(transform_weight(conv.weight, layer.geometry.tile)))
        layer.weight.requires_grad_(conv.weight.requires_grad)
        return layer._take_bias(conv)

    def keep(self, kept: Sequence[int]) -> None:
        """Compute only the `kept` positions (rising) from now on, with all their weights, whatever was dropped before.

        Raises ValueError naming what is wrong with them.
        """
        positions = kept_positions(kept, self.geometry.tile)
        mask = torch.zeros(self.geometry.tile.positions, 1, 1, dtype=torch.bool)
        mask[list(positions)] = True
        self.keep_weights(mask)

    def keep_weights(self, mask: Tensor) -> None:
        """Keep the weights at which `mask` (bool [T, 1 or Cin, 1 or Cout]) is True, drop the others.

        Raises ValueError for other shapes and dtypes and for a mask that keeps nothing.
        """
        self._check_mask(mask, "mask")
        self._shape_mask(mask.shape)
        self.mask.copy_(mask)
        self.follow()

    @torch.no_grad()
    def adopt(self, u: Tensor, mask: Tensor) -> None:
        """Keep the weights at which `mask` is True, as `keep_weights` does, and make them those of u [T, Cin, Cout]."""
        self.keep_weights(mask)
        kept = list(self.geometry.positions)
        change = self.rows(u).to(self.weight) - self.stored()
        change *= self.rows(self.mask)  # what is dropped may come back as it was
        self.weight[kept] += self._counted(change)

    def compute_all(self, all_columns: bool = True) -> None:
        """Whether dropped columns are computed too, as zeros, so that they have gradients."""
        self.computes_all = all_columns
        self.take_kept()

    def _check_mask(self, mask: Tensor, name: str) -> None:
        sizes = (self._geometry.tile.positions, self.in_channels, self.out_channels)
        if mask.dtype != torch.bool:
            raise ValueError(f"{name}: dtype {mask.dtype}; accepted is bool")
        fitting = mask.dim() == 3 and all(n in (1, size) for n, size in zip(mask.shape, sizes, strict=True))
        if not fitting or mask.shape[0] != sizes[0]:
            raise ValueError(
                f"{name}: shape {list(mask.shape)}; accepted is [{sizes[0]}, 1 or {sizes[1]}, 1 or {sizes[2]}]"
            )
        if not bool(mask.any()):
            raise ValueError(f"{name}: keeps no column; a layer keeps at least one of {sizes[0]}")

    def _shape_mask(self, shape: Sequence[int]) -> None:
        if tuple(shape) != tuple(self.mask.shape):
            self.mask = torch.ones(*shape, dtype=torch.bool, device=self.mask.device)

    def take_kept(self) -> None:
        """Compute the columns of which the mask keeps anything. Raises ValueError for a mask that keeps nothing."""
        self._check_mask(self.mask, "mask")
        there, tile = self.mask.flatten(1).any(1), self._geometry.tile
        kept = range(tile.positions) if self.computes_all else [int(p) for p in there.nonzero().flatten()]
        self.geometry = replace(self._geometry, kept=None if len(kept) == tile.positions else tuple(kept))
        self._holes = not bool(self.mask[list(kept)].all())

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        mask = state_dict.get(prefix + "mask")
        if mask is not None:
            self._check_mask(mask, f"state_dict: {prefix}mask")
            self._shape_mask(mask.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.follow()

    def __setstate__(self, state: dict[str, Any]) -> None:
        buffers = {**state["_buffers"]}
        buffers.setdefault("scale", None)  # pickled before there was one
        super().__setstate__({"units": "none", **state, "_buffers": buffers})
        self.compute_all(False)  # who wanted that watches the original

    def stored(self) -> Tensor:
        """U [K, Cin, Cout]: the computed rows, with what single weights are dropped still in them."""
        u = self.rows(self.weight)
        return u if self.scale is None else u * self.rows(self.scale)[:, None]

    def all_rows(self) -> Tensor:
        """U [T, Cin, Cout] of all columns, as `stored`."""
        return self.weight if self.scale is None else self.weight * self.scale[:, None]

    def _counted(self, u: Tensor) -> Tensor:
        """Rows of U, the computed ones or all, in the units of `weight`."""
        if self.scale is None:
            return u
        return u / (self.scale if len(u) == len(self.scale) else self.rows(self.scale))[:, None]

    def weights(self) -> Tensor:
        """U [K, Cin, Cout] of the computed columns, zero where weights are dropped."""
        self.follow()
        return self.stored() * self.rows(self.mask) if self._holes else self.stored()

    def rows(self, table: Tensor) -> Tensor:
        """The computed rows of a [T, ...] table."""
        kept = self._layer.kept
        if kept is None:
            return table
        return table.index_select(0, kept_index(kept, table.device)) if table.is_cuda else table[list(kept)]
