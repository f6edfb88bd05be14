"""Dropping weights: whole Winograd columns or blocks of them by a score, and the element-wise methods compared with."""

from lrw.pruning.granularity import COLUMN, WEIGHT, Granularity
from lrw.pruning.native import NativePruner
from lrw.pruning.pruner import ColumnPruner, NotFinite
from lrw.pruning.scores import SCORES
from lrw.pruning.selection import SCOPES, select_global, select_per_layer
from lrw.pruning.spatial import SpatialPruner
from lrw.pruning.weights import keep_nonzero, prune_weights, scale_gradients, weight_density

__all__ = [
    "COLUMN",
    "SCOPES",
    "SCORES",
    "WEIGHT",
    "ColumnPruner",
    "Granularity",
    "NativePruner",
    "NotFinite",
    "SpatialPruner",
    "keep_nonzero",
    "prune_weights",
    "scale_gradients",
    "select_global",
    "select_per_layer",
    "weight_density",
]
