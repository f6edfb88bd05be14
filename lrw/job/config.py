"""What a job is asked to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

from lrw import checks, nets
from lrw.job.plain import built, check_keys
from lrw.pruning import SCOPES, SCORES
from lrw.pruning.budget import Budget
from lrw_kernels.aot import find_target

SAMPLES = 256  # that columns are fitted on after a cut


@dataclass(frozen=True)
class JobConfig:
    """Settings of one `lrw compress`; all defaults are ours.

    epochs are those of dense training; fine-tuning with the low-rank update takes a third as many, retraining after
    the cut half as many. calibration: what a cut leaves is fitted to what the network gave before it, on SAMPLES of the
    training samples. multiplies: the share of direct convolution's multiplies that may be left; tiles and columns are
    then what a plan says (`lrw.prune`), at once after dense training, and what else says how to cut does not count.
    Raises ValueError naming the argument.
    """

    data: str = "digits"
    net: str = "c3d"
    width: int = 8
    weights: str | None = None
    tile: int | tuple[int, int, int] = 2
    rank: int = 8
    sparsity: float = 0.75
    score: str = "product"
    scope: str = "layer"
    stages: int = 1
    calibration: bool = True
    multiplies: float | None = None
    distill: float = 0.0
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 3e-3
    seed: int = 0
    out: str = "lrw-run"
    export: str = "network"
    target: str = "aarch64-linux-gnu"

    def __post_init__(self) -> None:
        if self.net not in nets.NAMES:
            raise ValueError(f"net: {self.net!r}; accepted are {', '.join(nets.NAMES)}")
        if not self.out or (Path(self.out).exists() and not Path(self.out).is_dir()):
            raise ValueError(f"out: {self.out!r}; accepted is a folder, there or not")
        for name in ("width", "rank", "stages", "epochs", "batch_size"):
            checks.check_count(getattr(self, name), name)
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size: {self.batch_size}; accepted is 2 or more, batch norm cannot train on one sample"
            )
        checks.check_share(self.sparsity, "sparsity")
        if self.multiplies is not None:
            Budget(multiplies=self.multiplies)
            for name in ("tile", "sparsity", "score", "scope", "stages", "calibration"):
                if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                    raise ValueError(f"multiplies: a plan says what is cut; accepted is without {name}")
        if self.score not in SCORES:
            raise ValueError(f"score: {self.score!r}; accepted are {', '.join(SCORES)}")
        if self.scope not in SCOPES:
            raise ValueError(f"scope: {self.scope!r}; accepted are {', '.join(SCOPES)}")
        if not 0 <= self.distill <= 1:
            raise ValueError(f"distill: {self.distill!r}; accepted is a share of the loss from 0 to 1")
        if self.export not in ("network", "none"):
            raise ValueError(f"export: {self.export!r}; accepted are 'network' and 'none'")
        find_target(self.target)
        if self.stages > self.retrain_epochs:
            raise ValueError(
                f"stages: {self.stages}; one is cut per retraining epoch, of which there are {self.retrain_epochs}"
            )
        if not 0 < self.learning_rate < 1:
            raise ValueError(f"learning_rate: {self.learning_rate!r}; accepted is a rate between 0 and 1")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed: {self.seed!r}; accepted are whole numbers from 0 to 2**31 - 1")

    @staticmethod
    def of(values: Mapping[str, Any]) -> "JobConfig":
        """The settings that a `to_dict` says. Raises ValueError for other values than a job's."""
        hints = {**get_type_hints(JobConfig), "tile": int | list[int]}
        check_keys(dict(values), hints, "config")
        found = {name: built(values[name], hint, f"config.{name}") for name, hint in hints.items()}
        tile = found["tile"]
        return JobConfig(**{**found, "tile": tuple(tile) if isinstance(tile, list) else tile})

    @property
    def planned(self) -> bool:
        """Whether a plan says what is cut, not scores."""
        return self.multiplies is not None

    @property
    def finetune_epochs(self) -> int:
        """Epochs of low-rank training in which columns are scored."""
        return max(1, self.epochs // 3)

    @property
    def retrain_epochs(self) -> int:
        """Epochs of low-rank training after the (first) cut."""
        return max(1, self.epochs // 2)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as reports and checkpoints hold them."""
        values = asdict(self)
        return {**values, "tile": list(self.tile) if isinstance(self.tile, tuple) else self.tile}

    def same_work(self, other: dict[str, Any]) -> list[str]:
        """The settings in which `other` (a `to_dict`) would do other work; where its files lie does not count."""
        mine = self.to_dict()
        return [key for key in mine if key != "out" and mine[key] != other.get(key)]
