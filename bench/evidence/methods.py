"""The methods compared, each as a chain of the same shape: start from a trained network, train, cut, train, cut, ...

A method says which parameters it trains, watches the steps, and cuts; how long it trains is the setting's. Some cut and
never train. Learning rates are ours, one for each kind of parameter (log: bench/notes/evidence.md).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

import lrw
from bench.evidence.method import Method, Samples, winograd
from bench.evidence.older import Native, SparseWinograd, SpatialWinograd
from bench.evidence.settings import EIGHT_BITS, PLANNED, REMOVED
from lrw.layers import named_layers
from lrw.nn import WinogradConv3d
from lrw.pruning import COLUMN, ColumnPruner, Granularity
from lrw.pruning.calibration import Calibration
from lrw.pruning.layerwise import refit
from lrw.pruning.statistics import estimate_again
from lrw_kernels.winograd import importance

RANK = 8
RATE, RATE_OF_U, RATE_OF_U_F4, RATE_OF_FILTERS = 3e-3, 2e-3, 2e-4, 3e-3
BLOCK = 16  # output channels of a grouped column
PACKAGES = {EIGHT_BITS: ("openvino", "nncf"), "filters": ("torch_pruning",)}

Prune = Callable[[nn.Module, Samples, float], nn.Module]


class Untrained(Method):
    """Each rate from the dense network, without any training: all of it is `prune(dense, samples, removed)`."""

    trains = False

    def __init__(self, prune: Prune, rates: tuple[float, ...] = REMOVED) -> None:
        super().__init__()
        self._prune, self.rates = prune, rates
        self._given: tuple[nn.Module, Samples] | None = None

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        self._given = dense, samples
        return deepcopy(dense)  # which may go to another device

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        assert self._given is not None
        return self._prune(*self._given, removed)


class Fitted(Method):
    """Columns by elimination, the others fitted; trained are all weights, or with a `rank` the two factors.

    With `rates` of multiplies a plan says what each layer loses, tiles included.
    """

    def __init__(
        self, rank: int | None = RANK, *, units: str = "importance", granularity: Granularity = COLUMN, tile: int = 2,
        planned: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(tile)
        self.before = tile > 2  # what training in the domain does to all columns is asked there
        self.rank, self.units, self.granularity, self.planned = rank, units, granularity, planned
        self.rate = RATE if rank is not None else RATE_OF_U if tile == 2 else RATE_OF_U_F4
        self.rates = PLANNED if planned else REMOVED
        self._samples: Samples = ()

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        self._samples = samples
        own = self.units if self.rank is None else "none"
        return deepcopy(dense) if self.planned else self._with_factors(winograd(dense, self.tile, own))

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        if named_layers(net, lrw.nn.LowRankWinogradConv3d):
            lrw.merge_low_rank(net)
        how: dict[str, Any] = {"multiplies": 1 - removed} if self.planned else {"sparsity": removed}
        return self._with_factors(lrw.prune(net, self._samples, **how, granularity=self.granularity, progress=False))

    def _with_factors(self, net: nn.Module) -> nn.Module:
        return net if self.rank is None else lrw.add_low_rank(net, self.rank, units=self.units)


class Scored(Method):
    """Columns scored throughout a stretch, the best kept, nothing fitted (the letter's way); trained are all weights,
    or with a `rank` the two factors."""

    def __init__(self, rank: int | None = RANK, *, score: str = "product", tile: int = 2) -> None:
        super().__init__(tile)
        self.rank, self.score = rank, score
        self.rate = RATE_OF_U if rank is None else RATE
        self._pruner: ColumnPruner | None = None

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        net = winograd(dense, self.tile)
        return net if self.rank is None else lrw.add_low_rank(net, self.rank)

    def watch(self, net: nn.Module, removed: float) -> None:
        self._pruner = ColumnPruner(net, removed, score=self.score)

    def after_backward(self, net: nn.Module) -> None:
        if self._pruner is not None:
            self._pruner.observe()

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        assert self._pruner is not None
        self._pruner.prune()
        self._pruner.detach()
        self._pruner = None
        return net


class Filters(Method):
    """Whole filters by size, what a user would take instead (Torch-Pruning: Fang et al., DepGraph, arXiv 2301.12900);
    of a share of the weights gone, its root is gone of the channels."""

    rate = RATE_OF_FILTERS

    def __init__(self) -> None:
        super().__init__()
        self._example: Tensor | None = None
        self._left = 1.0

    def optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        """AdamW at one rate: all layers were cut."""
        return torch.optim.AdamW(net.parameters(), lr=self.rate, weight_decay=1e-4)

    def start(self, dense: nn.Module, samples: Samples) -> nn.Module:
        self._example = samples[0][:1]
        return deepcopy(dense)

    def cut(self, net: nn.Module, removed: float) -> nn.Module:
        assert self._example is not None
        share = ((1 - removed) / self._left) ** 0.5
        self._left = 1 - removed
        return without_filters(net, self._example, 1 - share)


def without_filters(net: nn.Module, example: Tensor, share: float) -> nn.Module:
    """`net`, changed, without that share of the channels between its layers."""
    torch_pruning: Any = import_module("torch_pruning")
    layers = [module for module in net.modules() if isinstance(module, nn.Conv3d | nn.Linear)]
    size = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    of = torch_pruning.pruner.MagnitudePruner(
        net, example.to(next(net.parameters()).device), importance=size, pruning_ratio=share, ignored_layers=layers[-1:]
    )
    of.step()
    return net


def cut(dense: nn.Module, removed: float, tile: int) -> nn.Module:
    """Without the columns of least |U| F (Yu, Park, Naumov, arXiv 1901.02132), nothing else changed."""
    net = winograd(dense, tile)
    for name, mask in _largest(net, removed, "importance").items():
        net.get_submodule(name).keep_weights(mask)  # type: ignore[operator]
    return net


def fitted_by(dense: nn.Module, samples: Samples, removed: float, measure: str, tile: int) -> nn.Module:
    """Without the columns that are least by `measure`, the others fitted."""
    net, calibration = winograd(dense, tile).eval(), Calibration.of(samples, None)
    with torch.no_grad():
        refit(net, named_layers(net, WinogradConv3d), _largest(net, removed, measure), calibration)
        estimate_again(net, dense, calibration)  # as `lrw.prune` does
    return net


def _largest(net: nn.Module, removed: float, measure: str) -> dict[str, Tensor]:
    """Masks of the columns whose |U| is largest, in units of their importance unless measured by "magnitude"."""
    masks = {}
    for name, layer in named_layers(net, WinogradConv3d).items():
        tile, size = layer.geometry.tile, layer.weights().detach().flatten(1).norm(dim=1).double()
        size = size if measure == "magnitude" else size * torch.from_numpy(importance(tile))
        kept = size.argsort(descending=True, stable=True)[: tile.positions - round(removed * tile.positions)]
        masks[name] = torch.zeros(tile.positions, 1, 1, dtype=torch.bool)
        masks[name][kept] = True
    return masks


def without_packages(name: str) -> str | None:
    """Why a method cannot be run, None where it can."""
    absent = [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]
    return f"{absent[0]} is not installed" if absent else None


def _fitted(tile: int) -> Method:
    return Untrained(lambda net, samples, removed: lrw.prune(net, samples, sparsity=removed, tile=tile, progress=False))


def _planned() -> Method:
    return Untrained(
        lambda net, samples, removed: lrw.prune(net, samples, multiplies=1 - removed, progress=False), PLANNED
    )


def _cut(tile: int) -> Method:
    return Untrained(lambda net, samples, removed: cut(net, removed, tile))


def _by(measure: str, tile: int) -> Method:
    return Untrained(lambda net, samples, removed: fitted_by(net, samples, removed, measure, tile))


@dataclass(frozen=True)
class Entry:
    """A method by name: what the page says of it, and how it is made."""

    about: str
    new: Callable[[], Method]


METHODS: dict[str, Entry] = {
    "cut": Entry("no training: columns of least |U| F go, nothing else changes", lambda: _cut(2)),
    "cut_f4": Entry("the same at F(4,3)", lambda: _cut(4)),
    "fitted": Entry("no training: `lrw.prune`, elimination and least squares", lambda: _fitted(2)),
    "fitted_f4": Entry("the same at F(4,3)", lambda: _fitted(4)),
    "by_importance_f4": Entry("no training, F(4,3): columns of least |U| F go, the others are fitted",
                              lambda: _by("importance", 4)),
    "by_magnitude_f4": Entry("no training, F(4,3): columns of least |U| go, the others are fitted",
                             lambda: _by("magnitude", 4)),
    "planned": Entry("no training: `lrw.prune(multiplies=)`, tiles and columns as a plan says", _planned),
    "low_rank": Entry("`lrw.prune` at each cut, rank 8 trained", Fitted),
    "low_rank_f4": Entry("the same at F(4,3)", lambda: Fitted(tile=4)),
    "planned_low_rank": Entry("`lrw.prune(multiplies=)` at each cut, rank 8 trained", lambda: Fitted(planned=True)),
    "low_rank_cut": Entry("columns of least score go (product), nothing is fitted, rank 8 trained", Scored),
    "vanilla": Entry("`lrw.prune` at each cut, all of U trained", lambda: Fitted(None)),
    "vanilla_f4": Entry("the same at F(4,3)", lambda: Fitted(None, tile=4)),
    "vanilla_cut": Entry("columns of least score go, nothing is fitted, all of U trained", lambda: Scored(None)),
    "grouped": Entry(f"as low_rank, columns in blocks of {BLOCK} outputs",
                     lambda: Fitted(granularity=Granularity(None, BLOCK))),
    "filters": Entry("whole filters by size (Torch-Pruning), direct convolutions", Filters),
    "sparse_winograd": Entry("single weights (Sparse-Winograd)", SparseWinograd),
    "native": Entry("single weights (native pruning)", Native),
    "spatial_winograd": Entry("single weights (Spatial-Winograd)", SpatialWinograd),
    "paper_units_f4": Entry("as low_rank_f4, Gc as it is in the letter", lambda: Fitted(units="none", tile=4)),
    "plain_vanilla_f4": Entry("as vanilla_f4, U as it is", lambda: Fitted(None, units="none", tile=4)),
}  # fmt: skip
