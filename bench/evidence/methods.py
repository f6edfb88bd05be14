"""The methods compared, each as a chain of the same shape: start from a trained network, train, cut, train, cut, ...

A method says which parameters it trains, watches the steps, and cuts; how long it trains is the setting's.
Learning rates are ours, one for each kind of parameter (log: bench/notes/evidence.md).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lrw.convert import to_winograd
from lrw.layers import named_layers
from lrw.lowrank import add_low_rank
from lrw.nn import WinogradConv3d
from lrw.pruning import (
    COLUMN,
    ColumnPruner,
    Granularity,
    NativePruner,
    SpatialPruner,
    keep_nonzero,
    prune_weights,
    scale_gradients,
    weight_density,
)
from lrw_kernels.winograd import output_norms

BLOCK = 16  # output channels of a grouped column
SPATIAL_SHARE = 0.3  # of the coefficients, before conversion
FACTOR = 10.0  # of native pruning, its authors'
NATIVE_PART = 0.5  # share of a stretch in which native pruning goes on; then zeros stay zero


class Method:
    """One method on one network. The base class trains all transformed weights and never cuts.

    Call order: `start`, then for each rate a stretch of training with `watch` before it and `after_backward` and
    `after_step` in it, and `cut` after it.
    """

    rate = 1e-3  # learning rate of the Winograd layers
    distill = 0.0

    def __init__(self, tile: int = 2) -> None:
        self.tile = tile

    def start(self, dense: nn.Module) -> nn.Module:
        """The network to train; `dense` is left as it is. The first layer stays a convolution, as in the papers."""
        first = next(iter(named_layers(dense, nn.Conv3d)))
        return to_winograd(dense, self.tile, filter=lambda name, _: name != first)

    def optimizer(self, net: nn.Module, rest: float) -> torch.optim.Optimizer:
        """AdamW, with `rest` as learning rate of all that is no Winograd layer."""
        domain = {id(p) for layer in named_layers(net, WinogradConv3d).values() for p in layer.parameters()}
        trained = [p for p in net.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in trained if id(p) in domain], "lr": self.rate},
            {"params": [p for p in trained if id(p) not in domain], "lr": rest},
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

    def density(self, net: nn.Module) -> float:
        """Share of the weights of the Winograd layers that is kept."""
        layers = named_layers(net, WinogradConv3d)
        sizes = {name: layer.weight.numel() for name, layer in layers.items()}
        return sum(share * sizes[name] for name, share in weight_density(net).items()) / sum(sizes.values())


class Columns(Method):
    """Columns scored throughout a stretch, the best kept; trained are all weights, or with a `rank` the two factors."""

    def __init__(
        self, rank: int | None = 8, *, init: str = "principal", score: str = "product",
        granularity: Granularity = COLUMN, distill: float = 0.0, tile: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(tile)
        self.rank, self.init, self.score = rank, init, score
        self.granularity, self.distill = granularity, distill
        self.rate = 2e-3 if rank is None or tile > 2 else 5e-3
        self._pruner: ColumnPruner | None = None

    def start(self, dense: nn.Module) -> nn.Module:
        net = super().start(dense)
        return net if self.rank is None else add_low_rank(net, self.rank, init=self.init)

    def watch(self, net: nn.Module, removed: float) -> None:
        self._pruner = ColumnPruner(net, removed, granularity=self.granularity, score=self.score)

    def after_backward(self, net: nn.Module) -> None:
        if self._pruner is not None:
            self._pruner.observe()

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        assert self._pruner is not None
        self._pruner.prune()
        self._pruner.detach()
        self._pruner = None
        return net


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

    def start(self, dense: nn.Module) -> nn.Module:
        """The plain network with taps masked: it is converted at the first cut."""
        net = deepcopy(dense)
        self._pruner = SpatialPruner(net, self.tile, spare=[next(iter(named_layers(net, nn.Conv3d)))])
        self._pruner.prune(SPATIAL_SHARE)
        return net

    def optimizer(self, net: nn.Module, rest: float) -> torch.optim.Optimizer:
        """SGD in the domain: with AdamW the scale of a gradient says nothing."""
        if self._pruner is not None:
            return torch.optim.AdamW(net.parameters(), lr=rest, weight_decay=1e-4)
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
            net = super().start(net)
            keep_nonzero(net)
        prune_weights(net, removed, measure="weighted_magnitude")
        return net

    def density(self, net: nn.Module) -> float:
        if self._pruner is None:
            return super().density(net)
        zeros = self._pruner.zeros()
        return 1 - sum(zeros.values()) / len(zeros)


def native_threshold(layer: WinogradConv3d, removed: float) -> float:
    """The threshold at which one native step drops a share of `removed` of a layer's weights, gradients as they are."""
    u, du = layer.weight.detach(), layer.weight.grad
    assert du is not None, "the stretch before left no gradient"
    norms = torch.from_numpy(output_norms(layer.geometry.tile)).to(u)[:, None, None]
    sizes = u.abs() * norms * (du.abs() + 1 / FACTOR)
    return float(sizes.flatten().kthvalue(max(1, round(removed * sizes.numel()))).values)


@dataclass(frozen=True)
class Entry:
    """A method by name: what the page says of it, and how it is made."""

    about: str
    make: Callable[..., Method]
    options: dict[str, Any]

    def new(self) -> Method:
        """The method, fresh."""
        return self.make(**self.options)


METHODS: dict[str, Entry] = {
    "vanilla": Entry("columns, all of U trained", Columns, {"rank": None}),
    "low_rank": Entry("columns, rank 8, factors that start as the base's principal directions", Columns, {}),
    "low_rank_4": Entry("columns, rank 4", Columns, {"rank": 4}),
    "zero_start": Entry("columns, rank 8, factors that start at zero", Columns, {"init": "gc_zero"}),
    "distilled": Entry("columns, rank 8, distilled", Columns, {"distill": 0.5}),
    "grouped": Entry(
        f"columns in blocks of {BLOCK} outputs, rank 8", Columns, {"granularity": Granularity(None, BLOCK)}
    ),
    "sparse_winograd": Entry("single weights (Sparse-Winograd)", SparseWinograd, {}),
    "native": Entry("single weights (native pruning)", Native, {}),
    "spatial_winograd": Entry("single weights (Spatial-Winograd)", SpatialWinograd, {}),
    "taylor": Entry("rank 8, score taylor", Columns, {"score": "taylor"}),
    "weighted_magnitude": Entry("rank 8, score weighted_magnitude", Columns, {"score": "weighted_magnitude"}),
    "weighted_sum": Entry("rank 8, score weighted_sum", Columns, {"score": "weighted_sum"}),
    "magnitude": Entry("rank 8, score magnitude", Columns, {"score": "magnitude"}),
    "f4_product": Entry("F(4,3), rank 8, score product", Columns, {"tile": 4}),
    "f4_weighted_magnitude": Entry(
        "F(4,3), rank 8, score weighted_magnitude", Columns, {"tile": 4, "score": "weighted_magnitude"}
    ),
    "f4_magnitude": Entry("F(4,3), rank 8, score magnitude", Columns, {"tile": 4, "score": "magnitude"}),
}
