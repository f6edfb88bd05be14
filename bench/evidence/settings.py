"""How much is trained: the small setting fits two cores in four hours, the full one is for a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass

REMOVED = (0.5, 0.75, 0.875)
"""Shares of the columns (or weights) that are gone after each cut, one after the other in the same network."""

PLANNED = (1 - 1 / 8, 1 - 1 / 16, 1 - 1 / 32)
"""Shares of direct convolution's multiplies that are gone where a plan spreads them over layers and tiles."""

SEEDS = 3
"""Networks of each kind, each from a start of its own; of volumes each is tested on a third that it has not seen."""

UNTRAINED = ("cut", "cut_f4", "fitted", "fitted_f4", "by_magnitude_f4", "by_importance_f4", "planned")
TRAINED = (
    "low_rank", "low_rank_f4", "planned_low_rank", "low_rank_cut", "vanilla", "vanilla_f4", "vanilla_cut", "grouped",
    "filters", "native", "sparse_winograd", "spatial_winograd",
)  # fmt: skip
UNITS = ("paper_units_f4", "plain_vanilla_f4")
ONE_SEED = ("grouped", "vanilla_cut", *UNITS)  # what is asked of them is not close
EIGHT_BITS = "int8"


@dataclass(frozen=True)
class Stretch:
    """How long one task trains: epochs of the dense network, before the first cut and after each cut; batch size,
    weight decay of the dense network, unlabelled samples that pruning without training sees."""

    dense: int
    score: int
    retrain: int
    batch: int
    decay: float
    samples: int


@dataclass(frozen=True)
class Setting:
    """One run of everything: `stretches` and `methods` by task."""

    name: str
    width: int
    subsample: int  # hippocampus: every how many voxels one is taken, along each axis
    clips: int  # digits: how many to train on
    tests: int  # and how many to test on
    stretches: Mapping[str, Stretch]
    methods: Mapping[str, tuple[str, ...]]


SMALL = Setting(
    name="small",
    width=8,
    subsample=2,
    clips=24000,
    tests=12000,
    stretches={
        "digits": Stretch(dense=5, score=1, retrain=1, batch=32, decay=1e-2, samples=256),
        "hippocampus": Stretch(dense=40, score=2, retrain=8, batch=4, decay=1e-4, samples=48),
        "adrenal": Stretch(dense=30, score=1, retrain=3, batch=32, decay=1e-2, samples=256),
    },
    methods={
        "digits": (EIGHT_BITS, *UNTRAINED, *TRAINED, *UNITS),
        "hippocampus": (EIGHT_BITS, *UNTRAINED, *TRAINED),
        "adrenal": (EIGHT_BITS, *UNTRAINED, *TRAINED),
    },
)
FULL = Setting(
    name="full",
    width=32,
    subsample=1,
    clips=48000,
    tests=12000,
    stretches={
        "digits": Stretch(dense=20, score=2, retrain=5, batch=64, decay=1e-2, samples=256),
        "hippocampus": Stretch(dense=120, score=4, retrain=30, batch=4, decay=1e-4, samples=48),
        "adrenal": Stretch(dense=60, score=2, retrain=15, batch=32, decay=1e-2, samples=256),
    },
    methods=SMALL.methods,
)
SETTINGS = {setting.name: setting for setting in (SMALL, FULL)}
