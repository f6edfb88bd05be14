"""Pruning inside every training step, by magnitude and gradient at once (Li, Park, Tang, arXiv 1702.08597)."""

import torch
from torch import Tensor, nn

from lrw.nn import WinogradConv3d
from lrw.pruning.weights import keep_all, whole_mask, winograd_convs
from lrw.typed import typed
from lrw_kernels.winograd import output_norms


class NativePruner:
    """Set weights of `net`'s WinogradConv3d layers to zero, step by step, where they and their gradients are small.

        loss.backward(); optimizer.step(); pruner.step()      # any number of times
        pruner.finish()                                       # from then on zeros stay zero

    A weight u with gradient g at position p goes where |u| |A_p|_2 (|g| + 1/factor) <= threshold, A_p the row of the
    output transform (the rule of the authors' SkimCaffe, whose defaults these are). Until `finish` it may come back:
    gradients reach zeros too. Raises ValueError naming the argument.
    """

    @typed
    def __init__(self, net: nn.Module, threshold: float = 1e-4, factor: float = 10.0) -> None:
        for value, name in ((threshold, "threshold"), (factor, "factor")):
            if not value > 0:
                raise ValueError(f"{name}: {value!r}; accepted is a number above 0")
        self.layers = winograd_convs(net)
        for name, layer in self.layers.items():
            if not layer.weight.requires_grad:
                raise ValueError(f"net: the weights of {name!r} are frozen; this method trains and prunes them all")
        self.threshold, self.factor = threshold, factor
        for layer in self.layers.values():
            layer.compute_all()

    @torch.no_grad()
    def step(self) -> dict[str, float]:
        """Prune once; returns the share of weights that are not zero, by layer.

        Raises RuntimeError where the weights have no gradient yet.
        """
        for name, layer in self.layers.items():
            if layer.weight.grad is None:
                raise RuntimeError(f"step: the weights of {name!r} have no gradient; call it after loss.backward()")
        for layer in self.layers.values():
            layer.weight.masked_fill_(self._small(layer), 0)
        return {name: float(mask.double().mean()) for name, mask in self._nonzero().items()}

    @torch.no_grad()
    def finish(self) -> None:
        """Make masks of the zeros and stop computing columns that are gone.

        Raises ValueError, with nothing changed, where a layer has come to be all zero.
        """
        keep_all(self.layers, self._nonzero())
        for layer in self.layers.values():
            layer.compute_all(False)

    def _nonzero(self) -> dict[str, Tensor]:
        return {name: whole_mask(layer) & (layer.weight != 0) for name, layer in self.layers.items()}

    def _small(self, layer: WinogradConv3d) -> Tensor:
        u, du = layer.all_rows(), layer.weight.grad
        assert du is not None
        du = du if layer.scale is None else du / layer.scale[:, None]
        norms = torch.from_numpy(output_norms(layer.geometry.tile)).to(u)[:, None, None]
        return u.abs() * norms * (du.abs() + 1 / self.factor) <= self.threshold
