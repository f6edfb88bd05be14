"""How much is trained: the small setting fits two cores in an hour and a half, the full one is for a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass

REMOVED = (0.5, 0.75, 0.875, 0.9375)
"""Shares of the columns (or weights) that are gone after each cut, one after the other in the same network."""

MAIN = ("vanilla", "low_rank", "grouped", "sparse_winograd", "native", "spatial_winograd")
LEVERS = ("distilled", "low_rank_4", "zero_start")
SCORES = ("taylor", "weighted_magnitude", "weighted_sum", "magnitude")
LARGE_TILE = ("f4_product", "f4_weighted_magnitude", "f4_magnitude")


@dataclass(frozen=True)
class Stretch:
    """How long one task trains: epochs of the dense network, before the first cut and after each cut; batch size."""

    dense: int
    score: int
    retrain: int
    batch: int


@dataclass(frozen=True)
class Setting:
    """One run of everything: `stretches` and `methods` by task."""

    name: str
    seeds: int
    width: int
    subsample: int  # hippocampus: every how many voxels one is taken, along each axis
    clips: int  # digits: how many to train on
    stretches: Mapping[str, Stretch]
    methods: Mapping[str, tuple[str, ...]]


SMALL = Setting(
    name="small",
    seeds=3,
    width=8,
    subsample=2,
    clips=6000,
    stretches={
        "digits": Stretch(dense=8, score=1, retrain=1, batch=32),
        "adrenal": Stretch(dense=12, score=2, retrain=3, batch=32),
        "hippocampus": Stretch(dense=20, score=2, retrain=3, batch=4),
    },
    methods={
        "digits": (*MAIN, *LEVERS, *SCORES, *LARGE_TILE),
        "adrenal": MAIN,
        "hippocampus": MAIN,
    },
)
FULL = Setting(
    name="full",
    seeds=3,
    width=32,
    subsample=1,
    clips=6000,
    stretches={
        "digits": Stretch(dense=20, score=4, retrain=10, batch=64),
        "adrenal": Stretch(dense=60, score=10, retrain=30, batch=32),
        "hippocampus": Stretch(dense=80, score=10, retrain=30, batch=4),
    },
    methods=dict.fromkeys(("digits", "adrenal", "hippocampus"), (*MAIN, *LEVERS, *SCORES, *LARGE_TILE)),
)
SETTINGS = {setting.name: setting for setting in (SMALL, FULL)}
