"""Column pruning: score every Winograd column while training, keep the best, drop the rest."""

from lrw.pruning.granularity import COLUMN, WEIGHT, Granularity
from lrw.pruning.pruner import ColumnPruner
from lrw.pruning.scores import SCORES
from lrw.pruning.selection import SCOPES, select_global, select_per_layer

__all__ = ["COLUMN", "SCOPES", "SCORES", "WEIGHT", "ColumnPruner", "Granularity", "select_global", "select_per_layer"]
