"""Single weights of Winograd layers, dropped by size: the pruning of Sparse-Winograd and of Spatial-Winograd networks.

Liu, Pool, Han, Dally (arXiv 1802.06367): |U|, the same rate in every layer, again and again with retraining between.
Yu, Park, Naumov (arXiv 1901.02132): |U| F, F the importance of a position; gradients scaled by F^-1.5 while retraining.
The layers' masks hold what is dropped; nothing else has to be saved.
"""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d
from lrw.typed import typed
from lrw_kernels.winograd import Tile, importance

MEASURES = ("magnitude", "weighted_magnitude")
EXPONENT = 1.5  # of F in the authors' code


@typed
def prune_weights(
    net: nn.Module, sparsity: float, *, measure: str = "magnitude", spare: Collection[str] = ()
) -> dict[str, float]:
    """Drop the smallest weights of every WinogradConv3d until a share of `sparsity` is gone; returns what is left.

    measure: "magnitude" |U| or "weighted_magnitude" |U| F. What was dropped before stays so, and counts. Layers named
    in `spare` (the first one, in both papers) are left alone. The result is name -> share kept. Raises ValueError
    naming the argument, also for layers of which more is gone already, with nothing changed.
    """
    checks.check_share(sparsity, "sparsity")
    if measure not in MEASURES:
        raise ValueError(f"measure: {measure!r}; accepted are {', '.join(MEASURES)}")
    layers = winograd_convs(net)
    unknown = sorted(set(spare) - set(layers))
    if unknown:
        raise ValueError(f"spare: names {unknown[0]!r}, which is no WinogradConv3d; accepted are {', '.join(layers)}")
    chosen = {name: layer for name, layer in layers.items() if name not in spare}
    for name, layer in chosen.items():
        kept = int(whole_mask(layer).sum())
        if kept < _count(layer, 1 - sparsity):
            raise ValueError(f"sparsity: {sparsity}; {name!r} keeps {kept} weights already, fewer than that")
    keep_all(chosen, {name: _largest(layer, 1 - sparsity, measure) for name, layer in chosen.items()})
    return weight_density(net)


def keep_all(layers: Mapping[str, WinogradConv3d], masks: Mapping[str, Tensor]) -> None:
    """Give each layer its mask. Raises ValueError, with nothing changed, where one would keep no weight."""
    for name, mask in masks.items():
        if not bool(mask.any()):
            raise ValueError(f"net: {name!r} would keep no weight at all; a layer keeps at least one")
    for name, mask in masks.items():
        layers[name].keep_weights(mask)


@typed
def weight_density(net: nn.Module) -> dict[str, float]:
    """Share of the weights that each WinogradConv3d keeps, by name."""
    return {name: float(whole_mask(layer).double().mean()) for name, layer in winograd_convs(net).items()}


@typed
def keep_nonzero(net: nn.Module) -> dict[str, float]:
    """Drop the weights of every WinogradConv3d that are exactly zero; returns the share kept, by name.

    After `to_winograd` of a network whose taps were masked (`SpatialPruner`) those are the coefficients that depend on
    masked taps only. Raises ValueError, with nothing changed, where a layer is all zero.
    """
    layers = winograd_convs(net)
    with torch.no_grad():
        keep_all(layers, {n: whole_mask(layer) & (_all_weights(layer) != 0) for n, layer in layers.items()})
    return weight_density(net)


@typed
@torch.no_grad()
def scale_gradients(net: nn.Module, exponent: float = EXPONENT) -> None:
    """Divide the gradient of every trained WinogradConv3d weight by (F / min F)^exponent, before the optimizer's step.

    Without it the learning rate that suits one position explodes another (the authors' code: exponent 1.5). Raises
    RuntimeError where there are no gradients yet, ValueError where no such weight is trained, or one that is counted in
    units of its own.
    """
    layers = {name: layer for name, layer in winograd_convs(net).items() if layer.weight.requires_grad}
    if not layers:
        raise ValueError("net: trains no WinogradConv3d weights; low-rank factors have no position to scale by")
    for name, layer in layers.items():
        if layer.scale is not None:
            raise ValueError(f"net: {name!r} counts its weights in units of their own; accepted is units='none'")
        if layer.weight.grad is None:
            raise RuntimeError(f"scale_gradients: {name!r} has no gradient; call it after loss.backward()")
    for layer in layers.values():
        gradient = layer.weight.grad
        assert gradient is not None
        f = relative_importance(layer.geometry.tile).to(gradient)
        gradient /= f[:, None, None] ** exponent


def relative_importance(tile: Tile) -> Tensor:
    """F / min F [T], float64."""
    f = torch.from_numpy(importance(tile))
    return f / f.min()


def winograd_convs(net: nn.Module) -> dict[str, WinogradConv3d]:
    """Name -> layer. Raises ValueError where there is none, or one whose weights are not its own (`check_tensors`)."""
    checks.check_network(net)
    layers = named_layers(net, WinogradConv3d)
    if not layers:
        raise ValueError("net: holds no WinogradConv3d; convert it with lrw.to_winograd first")
    checks.check_tensors(layers)
    return layers


def whole_mask(layer: WinogradConv3d) -> Tensor:
    """A layer's mask, weight by weight: bool [T, Cin, Cout]."""
    return layer.mask.expand(-1, layer.in_channels, layer.out_channels)


def effective_weights(layer: WinogradConv3d) -> Tensor:
    """U [T, Cin, Cout] as the layer computes with it: zero where weights are dropped."""
    u = layer.weights().detach()
    whole = u.new_zeros(layer.geometry.tile.positions, *u.shape[1:])
    return whole.index_copy(0, torch.tensor(layer.geometry.positions, device=u.device), u)


def _all_weights(layer: WinogradConv3d) -> Tensor:
    """U [T, Cin, Cout] of all columns, dropped ones too."""
    computed = layer.computes_all
    layer.compute_all(True)
    u = layer.stored()
    layer.compute_all(computed)
    return u


@torch.no_grad()
def _largest(layer: WinogradConv3d, share: float, measure: str) -> Tensor:
    """bool [T, Cin, Cout]: the `share` of weights that are largest; of equals the first."""
    size = _all_weights(layer).abs().double()
    if measure == "weighted_magnitude":
        size = size * torch.from_numpy(importance(layer.geometry.tile)).to(size)[:, None, None]
    size = size.masked_fill(~whole_mask(layer), -1.0)  # dropped ones come last, behind zeros
    order = size.flatten().argsort(descending=True, stable=True)
    mask = torch.zeros(size.numel(), dtype=torch.bool, device=size.device)
    mask[order[: _count(layer, share)]] = True
    return mask.view_as(size)


def _count(layer: WinogradConv3d, share: float) -> int:
    """How many weights a `share` of a layer is."""
    return max(1, round(share * whole_mask(layer).numel()))
