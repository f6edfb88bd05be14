"""Taps of spatial filters, dropped so that Winograd coefficients become exactly zero.

The first stage of Spatial-Winograd pruning (Yu, Park, Naumov, arXiv 1901.02132), on a plain network: a coefficient is
zero if all taps it depends on are, so taps go in the groups of `lrw_kernels.winograd.supports`. Train with the taps
masked, convert with `to_winograd`, go on in the Winograd domain with `keep_nonzero`, `scale_gradients` and
`prune_weights(measure="weighted_magnitude")`.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import named_layers
from lrw.ops import TileLike
from lrw.typed import typed
from lrw_kernels.winograd import Tile, supports

STEPS, CLOSE = 100, 1e-4  # of the bisection, as in the authors' code


class SpatialPruner:
    """Mask taps of `net`'s suitable Conv3d layers until a share of their Winograd coefficients is exactly zero.

        pruner.prune(0.3)                                # again later with a larger share
        pruner.apply(); loss = ...; optimizer.step()     # masks before every forward pass, as the authors do

    tile: the one the network will be converted with. spare: layers left alone, by name. Raises ValueError naming the
    argument, or where no layer is suited.
    """

    @typed
    def __init__(self, net: nn.Module, tile: TileLike = 2, *, spare: Collection[str] = ()) -> None:
        convs = named_layers(net, nn.Conv3d)
        unknown = sorted(set(spare) - set(convs))
        if unknown:
            raise ValueError(f"spare: names {unknown[0]!r}, which is no Conv3d; accepted are {', '.join(convs)}")
        fitted = {name: checks.fitted(conv) for name, conv in convs.items() if name not in spare}
        self.layers = {name: conv for name, conv in fitted.items() if checks.unsuited(conv) is None}
        if not self.layers:
            raise ValueError("net: holds no Conv3d that could become a Winograd layer")
        self._tiles = {name: Tile.of(tile, conv.kernel_size) for name, conv in self.layers.items()}
        self.masks = {name: torch.ones_like(conv.weight, dtype=torch.bool) for name, conv in self.layers.items()}

    @typed
    def prune(self, share: float) -> dict[str, float]:
        """Mask the groups of smallest largest tap, by a threshold for each layer, and apply; returns the share reached.

        Thresholds are found by bisection, to within 1e-4 where the groups allow it. Raises ValueError,
        with nothing changed, for a share outside [0, 1) or one that would empty a layer.
        """
        checks.check_share(share, "share")
        masks: dict[str, Tensor] = {}
        for name, conv in self.layers.items():
            taps, groups = _pairs(conv.weight.detach().abs() * self.masks[name]), self._groups(name)

            def reached(threshold: float, taps: Tensor = taps, groups: Tensor = groups) -> float:
                return _zeros(_kept(taps, groups, threshold), groups)

            kept = _kept(taps, groups, bisect(reached, share, float(taps.max()))).view_as(conv.weight)
            masks[name] = self.masks[name] & kept
            if not bool(masks[name].any()):
                raise ValueError(f"share: {share} would leave {name!r} without a single tap")
        self.masks = masks
        self.apply()
        return self.zeros()

    @torch.no_grad()
    def apply(self) -> None:
        """Set the masked taps to zero."""
        for name, conv in self.layers.items():
            conv.weight *= self.masks[name]

    def zeros(self) -> dict[str, float]:
        """The share of Winograd coefficients that depend on masked taps only, by layer."""
        return {name: _zeros(_pairs(mask), self._groups(name)) for name, mask in self.masks.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The masks."""
        return {name: mask.clone() for name, mask in self.masks.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict()`. Raises ValueError where it belongs to other layers."""
        shapes = {name: mask.shape for name, mask in state.items()}
        if shapes != {name: mask.shape for name, mask in self.masks.items()}:
            raise ValueError(f"state: masks of layers {sorted(shapes)}; this network has {sorted(self.masks)}")
        self.masks = {name: mask.clone().to(self.masks[name].device) for name, mask in state.items()}
        self.apply()

    def _groups(self, name: str) -> Tensor:
        return torch.from_numpy(supports(self._tiles[name])).to(self.masks[name].device)


def bisect(share: Callable[[float], float], target: float, most: float) -> float:
    """The threshold in 0..most at which `share`, which rises with it, was found closest to `target`."""
    low, high = 0.0, most * (1 + 1e-6) + 1e-30
    found = {threshold: share(threshold) for threshold in (low, high)}
    for _ in range(STEPS):
        middle = (low + high) / 2
        if middle in found:
            break
        found[middle] = share(middle)
        if abs(found[middle] - target) <= CLOSE:
            break
        low, high = (middle, high) if found[middle] < target else (low, middle)
    return min(found, key=lambda threshold: abs(found[threshold] - target))


def _pairs(taps: Tensor) -> Tensor:
    """[Cout, Cin, rd, rh, rw] as [pairs of channels, r^3]."""
    return taps.flatten(2).flatten(0, 1)


def _kept(taps: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """bool [pairs, r^3]: taps in no group whose largest tap is below the threshold."""
    kept = torch.ones_like(taps, dtype=torch.bool)
    for group in groups.unique(dim=0):
        weak = taps[:, group].amax(1) < threshold
        kept &= ~(weak[:, None] & group)
    return kept


def _zeros(kept: Tensor, groups: Tensor) -> float:
    """The share of coefficients all of whose taps are gone."""
    return float(((kept.double() @ groups.double().T) == 0).double().mean())
