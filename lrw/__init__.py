"""lrw: fast 3D convolutional networks through the Winograd domain.

Run a whole network faster as it is (`accelerate`). Or convert it (`to_winograd`), fine-tune it with a low-rank update
(`add_low_rank`), score and prune whole Winograd columns (`ColumnPruner`) or drop them without training (`prune`),
compress it to what is left (`compress`),
hold what its layers compute against float64 (`check`), ready it for its first pass (`warmup`), save it without pickle
(`save`, `load`), carry what was timed to other machines (`save_plan`, `load_plan`), or compile it to a library without
Python (`export`). The functions are in `lrw.ops`, the modules in `lrw.nn`. Importing `lrw` imports torch and registers
lrw's operators there; what else there is, llvmlite, numba and triton among it, is imported when it is used.
"""

from typing import TYPE_CHECKING

from lrw import late
from lrw.nn import CompressedConv3d, GroupedConv3d, LowRankWinogradConv3d, WinogradConv3d
from lrw.version import __version__

if TYPE_CHECKING:
    from lrw.accelerate import accelerate, revert
    from lrw.callbacks import lightning_callback
    from lrw.check import check
    from lrw.checkpoint import load, save
    from lrw.compress import compress
    from lrw.convert import to_spatial, to_winograd
    from lrw.distill import distillation_loss
    from lrw.export import export
    from lrw.lowrank import add_low_rank, merge_low_rank, print_trainable_parameters, training_size
    from lrw.plans import load_plan, save_plan
    from lrw.prune import prune
    from lrw.pruning import ColumnPruner
    from lrw.rectify import activation_density, rectify
    from lrw.schedule import PruningSchedule
    from lrw.unchanged import forget, trust
    from lrw.warmup import warmup

late.from_modules(
    __name__,
    accelerate="accelerate revert",
    callbacks="lightning_callback",
    check="check",
    checkpoint="load save",
    compress="compress",
    convert="to_spatial to_winograd",
    distill="distillation_loss",
    export="export",
    lowrank="add_low_rank merge_low_rank print_trainable_parameters training_size",
    plans="load_plan save_plan",
    prune="prune",
    pruning="ColumnPruner",
    rectify="activation_density rectify",
    schedule="PruningSchedule",
    unchanged="forget trust",
    warmup="warmup",
)

__all__ = [
    "ColumnPruner",
    "CompressedConv3d",
    "GroupedConv3d",
    "LowRankWinogradConv3d",
    "PruningSchedule",
    "WinogradConv3d",
    "__version__",
    "accelerate",
    "activation_density",
    "add_low_rank",
    "check",
    "compress",
    "distillation_loss",
    "export",
    "forget",
    "lightning_callback",
    "load",
    "load_plan",
    "merge_low_rank",
    "print_trainable_parameters",
    "prune",
    "rectify",
    "revert",
    "save",
    "save_plan",
    "to_spatial",
    "to_winograd",
    "training_size",
    "trust",
    "warmup",
]
