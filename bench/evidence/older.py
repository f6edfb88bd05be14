"""The methods that drop single weights, of others: Sparse-Winograd, native and Spatial-Winograd pruning."""

from copy import deepcopy

import torch
from torch import nn

from bench.evidence.method import Method, Samples, winograd
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d
from lrw.pruning import NativePruner, SpatialPruner, keep_nonzero, prune_weights, scale_gradients
from lrw_kernels.winograd import output_norms

SPATIAL_SHARE = 0.3  # of the coefficients, before conversion
FACTOR = 10.0  # of native pruning, its authors'
NATIVE_PART = 0.5  # share of a stretch in which native pruning goes on; then zeros stay zero
SPATIAL_REST = 1e-3  # of convolutions whose taps are masked


class SparseWinograd(Method):
    """Single weights by size, the same rate in every layer (Liu et al., arXiv 1802.06367, without the moved ReLU)."""

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        prune_weights(net, removed)
        return net


class Native(Method):
    """Single weights by size and gradient, step after step (Li et al., arXiv 1702.08597).

    The threshold of each layer is the one at which the first step would drop what is asked for.
    """

    def __init__(self, tile: int = 2) -> None:
        super().__init__(tile)
        self._pruners: list[NativePruner] = []

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        layers = named_layers(net, WinogradConv3d).values()
        self._pruners = [NativePruner(layer, native_threshold(layer, removed), FACTOR) for layer in layers]
        return net

    def after_step(self, net: nn.Module, progress: float) -> None:
        for pruner in self._pruners:
            pruner.step()
            if progress >= NATIVE_PART:
                pruner.finish()
        if progress >= NATIVE_PART:
            self._pruners = []


class SpatialWinograd(Method):
    """Taps first, then single weights by size and importance, with scaled gradients (Yu et al., arXiv 1901.02132)."""

    rate = 1e-2

    def __init__(self, tile: int = 2) -> None:
        super().__init__(tile)
        self._pruner: SpatialPruner | None = None

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        """The plain network with taps masked: it is converted at the first cut."""
        net = deepcopy(dense)
        self._pruner = SpatialPruner(net, self.tile, spare=[next(iter(named_layers(net, nn.Conv3d)))])
        self._pruner.prune(SPATIAL_SHARE)
        return net

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """SGD in the domain: with AdamW the scale of a gradient says nothing."""
        if self._pruner is not None:
            return torch.optim.AdamW(net.parameters(), lr=SPATIAL_REST, weight_decay=1e-4)
        domain = {id(p): p for layer in named_layers(net, WinogradConv3d).values() for p in layer.parameters()}
        others = [p for p in net.parameters() if id(p) not in domain]
        groups = [{"params": list(domain.values())}, {"params": others}]
        return torch.optim.SGD(groups, lr=self.rate, momentum=0.9)

    def after_backward(self, net: nn.Module) -> None:
        if self._pruner is None:
            scale_gradients(net)

    def after_step(self, net: nn.Module, progress: float) -> None:
        if self._pruner is not None:
            self._pruner.apply()

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        if self._pruner is not None:
            self._pruner = None
            net = winograd(net, self.tile)
            keep_nonzero(net)
        prune_weights(net, removed, measure="weighted_magnitude")
        return net


def native_threshold(layer: WinogradConv3d, removed: float) -> float:
    """The threshold at which one native step drops a share of `removed` of a layer's weights, gradients as they are."""
    u, du = layer.weight.detach(), layer.weight.grad
    assert du is not None, "the stretch before left no gradient"
    norms = torch.from_numpy(output_norms(layer.geometry.tile)).to(u)[:, None, None]
    sizes = u.abs() * norms * (du.abs() + 1 / FACTOR)
    return float(sizes.flatten().kthvalue(max(1, round(removed * sizes.numel()))).values)
