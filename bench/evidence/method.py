"""What a method is: which parameters it trains, how it watches the steps, how it cuts."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import lrw
from bench.evidence.settings import REMOVED
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d

REST = 3e-4  # learning rate of what is no Winograd layer: it was trained already

Samples = Sequence[Tensor]


class Method:
    """One method on one network. The base class trains all transformed weights and never cuts.

    Call order: `start`, then for each of the `rates` `cut`, each followed by a stretch of training where it `trains`
    (with one more `before` the first), with `watch` before a stretch that a cut follows and `after_backward` and
    `after_step` in it. `samples` are unlabelled ones.
    """

    rates: tuple[float, ...] = REMOVED
    trains = True
    before = True  # a stretch before the first cut, for what is scored or for all columns to be seen
    rate = 1e-3  # learning rate of the Winograd layers

    def __init__(self, tile: int = 2) -> None:
        self.tile = tile

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        """The network to train; `dense` is left as it is. The first layer stays a convolution, as in the papers."""
        return winograd(dense, self.tile)

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """AdamW, with a learning rate of its own for what the Winograd layers' weights are made of."""
        layers = named_layers(net, WinogradConv3d).values()
        domain = {id(p) for layer in layers for p in layer.parameters() if p is not layer.bias}
        trained = [p for p in net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) in domain], "lr": self.rate},
            {"params": [p for p in trained if id(p) not in domain], "lr": REST},
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=1e-4)

    def watch(self, net: nn.Module, removed: float) -> None:
        """Before the stretch that ends with the cut to `removed`."""

    def after_backward(self, net: nn.Module) -> None:
        """Between backward pass and step."""

    def after_step(self, net: nn.Module, progress: float) -> None:
        """After a step, `progress` (0..1) through the stretch."""

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        """Drop down to `removed`; returns the network to go on with."""
        raise NotImplementedError(f"{type(self).__name__} defines no cut")


def winograd(dense: nn.Module, tile: int, units: str = "none") -> nn.Module:
    """`dense` with Winograd layers but for the first, which stays a convolution, as in the papers."""
    first = next(iter(named_layers(dense, nn.Conv3d)))
    return lrw.to_winograd(dense, tile, filter=lambda name, _: name != first, units=units)
