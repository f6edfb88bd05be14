"""The layer that stores and computes kept columns only."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lrw.geometry import Geometry
from lrw.nn.layer import WinogradLayer
from lrw_kernels.winograd import kept_positions


class CompressedConv3d(WinogradLayer):
    """Only the kept columns, folded: `weight` [K, Cin, Cout] and their positions in `kept` [K].

    Made by `lrw.compress`; inference is K dense products. `weight` can be trained further.
    """

    kept_in = "kept"
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
        geometry = replace(geometry, kept=geometry.positions, fixed=True)
        super().__init__(in_channels, out_channels, geometry, bias=bias, backend=backend, **tensor)
        self.weight = nn.Parameter(torch.zeros(geometry.columns, in_channels, out_channels, **tensor))
        self.register_buffer("kept", torch.tensor(geometry.positions, device=tensor.get("device")))
        self.follow()

    @classmethod
    def of(cls, layer: WinogradLayer) -> "CompressedConv3d":
        """The compressed form of any Winograd layer; computes the same function."""
        weight = layer.weights().detach()
        new = cls(
            layer.in_channels,
            layer.out_channels,
            layer.geometry,
            bias=layer.bias is not None,
            backend=layer.backend,
            device=weight.device,
            dtype=weight.dtype,
        )
        with torch.no_grad():
            new.weight.copy_(weight)
        new.weight.requires_grad_(layer.trains_weights)
        return new._take_bias(layer)

    def weights(self) -> Tensor:
        """U [K, Cin, Cout], as stored."""
        self.follow()
        return self.weight

    def take_kept(self) -> None:
        """Take the positions from `kept`. Raises ValueError where they are not the tile's, in rising order."""
        self.geometry = replace(self._geometry, kept=kept_positions(self.kept.tolist(), self._geometry.tile))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        kept = state_dict.get(prefix + "kept")
        if kept is not None:
            kept_positions(kept.tolist(), self._geometry.tile)  # refuse before anything is loaded
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.follow()
