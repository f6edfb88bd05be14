"""Winograd layers as modules: trained in the domain, trained through a low-rank update, or compressed.

All three compute `domain_conv3d` with the weights their `weights()` returns; they differ in where those come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.geometry import Geometry
from lrw.operators import without_autocast
from lrw.ops import TileLike, domain_conv3d, padding_sizes, transform_weight
from lrw_kernels.winograd import Tile, kept_positions

Observer = Callable[["WinogradLayer", Tensor], None]


class WinogradLayer(nn.Module):
    """What the three layers share: channels, geometry, bias, backend and the forward pass.

    `observer`, where set, is called with each forward pass's transformed weights [K, Cin, Cout] while gradients are
    recorded; a pruner watches through it. It is neither copied nor pickled with the module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        geometry: Geometry,
        *,
        bias: bool,
        backend: str = "auto",
        **tensor: Any,
    ) -> None:
        super().__init__()
        checks.check_count(in_channels, "in_channels")
        checks.check_count(out_channels, "out_channels")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.geometry, self.backend = geometry, backend
        self.observer: Observer | None = None
        self.bias = nn.Parameter(torch.zeros(out_channels, **tensor)) if bias else None

    @property
    def geometry(self) -> Geometry:
        """Tile, padding and kept positions."""
        return self._geometry

    @geometry.setter
    def geometry(self, value: Geometry) -> None:
        self._geometry = value
        self._layer = value.arguments

    def weights(self) -> Tensor:
        """U [K, Cin, Cout] of the kept columns."""
        raise NotImplementedError(f"{type(self).__name__} defines no weights()")

    def forward(self, input: Tensor) -> Tensor:
        """[N, Cin, D, H, W] -> [N, Cout, D', H', W']."""
        u = self.weights()
        if self.observer is not None and u.requires_grad:
            u = u.view_as(u)  # a tensor of this pass alone: hooks on a parameter itself would outlive it
            self.observer(self, u)
        return domain_conv3d(input, u, self.bias, self._layer, self.backend)

    def _take_bias(self, other: nn.Module) -> Self:
        """Copy `other`'s bias, whether it is trained, and its mode; returns self."""
        if self.bias is not None and isinstance(other.bias, Tensor):
            with torch.no_grad():
                self.bias.copy_(other.bias)
            self.bias.requires_grad_(other.bias.requires_grad)
        return self.train(other.training)

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        kept = f"{self.geometry.columns}/{self.geometry.tile.positions} columns"
        channels = f"{self.in_channels}, {self.out_channels}"
        rectified = ", Winograd-ReLU" if self.geometry.rectified else ""
        return f"{channels}, {self.geometry.tile.name}, padding={self.geometry.padding}, {kept}{rectified}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "observer": None}


class WinogradConv3d(WinogradLayer):
    """A 3D convolution whose weights live in the Winograd domain: `weight` [T, Cin, Cout], all of them trainable.

    `mask`, a persistent bool buffer [T, 1 or Cin, 1 or Cout], says which weights are kept; a column of which none is
    stays stored but is not computed. With free or pruned weights this is no convolution: tile, origin and padding
    belong to what it computes. `rectified` makes it a Winograd-ReLU layer (see `lrw.rectify`). Raises ValueError for
    channels, tiles, kernel sizes and paddings that are not accepted.
    """

    mask: Tensor
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
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        chosen = Tile.of(tile, kernel_size)
        geometry = Geometry(chosen, padding_sizes(padding, chosen.kernel_size), rectified=rectified)
        super().__init__(in_channels, out_channels, geometry, bias=bias, backend=backend, device=device, dtype=dtype)
        spatial = torch.empty(out_channels, in_channels, *chosen.kernel_size, device=device, dtype=dtype)
        nn.init.kaiming_uniform_(spatial, a=sqrt(5))  # nn.Conv3d's own start, then transformed
        self.weight = nn.Parameter(transform_weight(spatial, chosen).to(spatial.dtype))
        self.register_buffer("mask", torch.ones(chosen.positions, 1, 1, dtype=torch.bool, device=device))

    @classmethod
    def from_conv3d(cls, conv: nn.Conv3d, tile: TileLike = 2, backend: str = "auto") -> "WinogradConv3d":
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
            backend=backend,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        with torch.no_grad():
            layer.weight.copy_(transform_weight(conv.weight, layer.geometry.tile))
        layer.weight.requires_grad_(conv.weight.requires_grad)
        return layer._take_bias(conv)

    def keep(self, kept: Sequence[int]) -> None:
        """Compute only the `kept` positions (rising) from now on. Raises ValueError naming what is wrong with them."""
        positions = kept_positions(kept, self.geometry.tile)
        mask = torch.zeros(self.geometry.tile.positions, 1, 1, dtype=torch.bool)
        mask[list(positions)] = True
        self.keep_weights(mask)

    def keep_weights(self, mask: Tensor) -> None:
        """Keep the weights at which `mask` (bool [T, 1 or Cin, 1 or Cout]) is True, drop the others.

        Raises ValueError for other shapes and for a mask that keeps nothing.
        """
        self._check_mask(mask, "mask")
        self._shape_mask(mask.shape)
        self.mask.copy_(mask)
        self._follow_mask()

    def compute_all(self, all_columns: bool = True) -> None:
        """Whether dropped columns are computed too, as zeros, so that they have gradients."""
        self.computes_all = all_columns
        self._follow_mask()

    def _check_mask(self, mask: Tensor, name: str) -> None:
        sizes = (self.geometry.tile.positions, self.in_channels, self.out_channels)
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

    def _follow_mask(self) -> None:
        there, tile = self.mask.flatten(1).any(1), self.geometry.tile
        kept = range(tile.positions) if self.computes_all else [int(p) for p in there.nonzero().flatten()]
        self.geometry = replace(self.geometry, kept=None if len(kept) == tile.positions else tuple(kept))
        self._holes = not bool(self.mask[list(kept)].all())

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        mask = state_dict.get(prefix + "mask")
        if mask is not None:
            self._check_mask(mask, f"state_dict: {prefix}mask")
            self._shape_mask(mask.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._follow_mask()

    def stored(self) -> Tensor:
        """U [K, Cin, Cout]: the computed rows, with what single weights are dropped still in them."""
        return self.rows(self.weight)

    def weights(self) -> Tensor:
        """U [K, Cin, Cout] of the computed columns, zero where weights are dropped."""
        return self.stored() * self.rows(self.mask) if self._holes else self.stored()

    def rows(self, table: Tensor) -> Tensor:
        """The computed rows of a [T, ...] table."""
        kept = self.geometry.kept
        return table if kept is None else table[list(kept)]


class LowRankWinogradConv3d(WinogradConv3d):
    """A Winograd layer trained through two small matrices only (Qin, Lin et al., arXiv 2301.11180).

    U = weight + sum_s Gc[:, s] Gr[s] on the kept columns; `weight` [T, Cin, Cout] is frozen, `Gr` [s, Cin, Cout] and
    `Gc` [T, s] are trainable (the paper's factors transposed, so that they are GEMM-shaped). One factor starts at
    zero, so that step 0 is the given layer bit for bit. That start is ours; the paper's is not known.
    """

    Gr: nn.Parameter
    Gc: nn.Parameter

    @classmethod
    def of(cls, layer: WinogradConv3d, rank: int, init: str = "gc_zero") -> "LowRankWinogradConv3d":
        """`layer` with a low-rank update of `rank` (1 to T); its tensors are shared, `weight` is frozen.

        init "gc_zero" (Gr random, Gc zero) or "gr_zero" (the other way). Raises ValueError for other values.
        """
        checks.check_count(rank, "rank", layer.geometry.tile.positions)
        if init not in ("gc_zero", "gr_zero"):
            raise ValueError(f"init: {init!r}; accepted are 'gc_zero' and 'gr_zero'")
        new = cls.__new__(cls)
        nn.Module.__init__(new)
        new.__dict__.update(
            {**layer.__getstate__(), "_parameters": layer._parameters.copy(), "_buffers": layer._buffers.copy()}
        )
        new.weight.requires_grad_(False)
        gr = layer.weight.new_empty(rank, layer.in_channels, layer.out_channels)
        gc = layer.weight.new_empty(layer.geometry.tile.positions, rank)
        # The random factor is of size one per product, so that the other's learning rate means what it says.
        for factor, zero in ((gr, init == "gr_zero"), (gc, init == "gc_zero")):
            nn.init.zeros_(factor) if zero else nn.init.normal_(factor, std=1 / sqrt(rank))
        new.Gr, new.Gc = nn.Parameter(gr), nn.Parameter(gc)
        return new

    @property
    def rank(self) -> int:
        """s, the number of rank-one updates."""
        return int(self.Gr.shape[0])

    def stored(self) -> Tensor:
        """U [K, Cin, Cout]: the frozen rows plus the update, one GEMM."""
        base = self.rows(self.weight)
        with without_autocast(base.device):  # an update rounded to half precision would lose small steps
            return torch.addmm(base.flatten(1), self.rows(self.Gc), self.Gr.flatten(1)).view_as(base)


class CompressedConv3d(WinogradLayer):
    """Only the kept columns, folded: `weight` [K, Cin, Cout] and their positions in `kept` [K].

    Made by `lrw.compress`; inference is K dense products. `weight` can be trained further.
    """

    kept: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        geometry: Geometry,
        *,
        bias: bool,
        backend: str = "auto",
        **tensor: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, geometry, bias=bias, backend=backend, **tensor)
        self.weight = nn.Parameter(torch.zeros(geometry.columns, in_channels, out_channels, **tensor))
        self.register_buffer("kept", torch.tensor(geometry.positions, device=tensor.get("device")))

    @classmethod
    def of(cls, layer: WinogradLayer) -> "CompressedConv3d":
        """The compressed form of any Winograd layer; computes the same function."""
        weight = layer.weights().detach()
        geometry = replace(layer.geometry, kept=layer.geometry.positions, fixed=True)
        new = cls(
            layer.in_channels,
            layer.out_channels,
            geometry,
            bias=layer.bias is not None,
            backend=layer.backend,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            new.weight.copy_(weight)
        return new._take_bias(layer)

    def weights(self) -> Tensor:
        """U [K, Cin, Cout], as stored."""
        return self.weight

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        kept = state_dict.get(prefix + "kept")
        if kept is not None:
            kept_positions(kept.tolist(), self.geometry.tile)  # refuses what the tile has not before anything is loaded
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.geometry = replace(self.geometry, kept=kept_positions(self.kept.tolist(), self.geometry.tile))
