"""What a job is asked to do."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from lrw import checks, nets
from lrw.data import Volumes
from lrw.job.plain import built, check_keys
from lrw.nets.exported import SUFFIX
from lrw.nets.own import ACCEPTED
from lrw.pruning import SCOPES, SCORES
from lrw.pruning.budget import Budget
from lrw_kernels.aot import find_target

AUTO = "auto"
BATCH, SEGMENTED_BATCH = 32, 4  # samples of a step, where the data has a label a volume and a label a voxel


@dataclass(frozen=True)
class JobConfig:
    """Settings of one `lrw compress`; all defaults are ours.

    data: what `lrw.data.load` reads; size: of its samples, where it is not fixed. net: a network of `lrw.nets` of that
    width, or of one's own; "auto" is c3d, and unet3d where the data has a label a voxel. batch_size: None is BATCH, or
    SEGMENTED_BATCH. weights, trained, or a .pt2 file: the dense network is trained already. epochs are those of dense
    training; fine-tuning with the low-rank update takes a third as many, retraining after the cut half as many.
    calibration: what a cut leaves is fitted to what the network gave before it, on training samples. multiplies: the
    share of direct convolution's multiplies that may be left; tiles and columns are then what a plan says
    (`lrw.prune`), at once after dense training, and what else says how to cut does not count. Raises ValueError naming
    the argument.
    """

    data: str = "digits"
    size: tuple[int, int, int] | None = None
    net: str = AUTO
    width: int = 16
    weights: str | None = None
    trained: bool = False
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
    batch_size: int | None = None
    learning_rate: float = 3e-3
    seed: int = 0
    out: str = "lrw-run"
    export: str = "network"
    target: str = "aarch64-linux-gnu"

    def __post_init__(self) -> None:
        self._check_net()
        if not self.out or (Path(self.out).exists() and not Path(self.out).is_dir()):
            raise ValueError(f"out: {self.out!r}; accepted is a folder, there or not")
        for name in ("width", "rank", "stages", "epochs"):
            checks.check_count(getattr(self, name), name)
        if self.size is not None:
            checks.check_volume_size(self.size, "size")
        if self.batch_size is not None and (type(self.batch_size) is not int or self.batch_size < 2):
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

    def _check_net(self) -> None:
        if self.net not in (AUTO, *nets.NAMES) and not nets.is_own(self.net):
            raise ValueError(f"net: {self.net!r}; accepted are {AUTO}, {', '.join(nets.NAMES)}, {ACCEPTED}")
        if nets.is_own(self.net) and self.width != type(self).width:
            raise ValueError(f"width: {self.net} is called without arguments; accepted is nothing")
        if self.trained and not nets.is_own(self.net):
            raise ValueError(f"trained: {self.net} starts untrained; accepted are networks of one's own, or weights")

    @staticmethod
    def of(values: Mapping[str, Any]) -> "JobConfig":
        """The settings that a `to_dict` says. Raises ValueError for other values than a job's."""
        hints = {**get_type_hints(JobConfig), "tile": int | list[int], "size": list[int] | None}
        check_keys(dict(values), hints, "config")
        found = {name: built(values[name], hint, f"config.{name}") for name, hint in hints.items()}
        taken: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()}
        return JobConfig(**taken)

    def of_data(self, volumes: Volumes) -> "JobConfig":
        """The same settings with what the data decides. Raises ValueError where the network does not label what it
        has labels of."""
        net, segmented = self.net, volumes.segmented
        if net == AUTO:
            net = "unet3d" if segmented else "c3d"
        if net in nets.NAMES and (net in nets.CLASSIFIERS) == segmented:
            has, accepted = ("voxel", "unet3d") if segmented else ("volume", " and ".join(nets.CLASSIFIERS))
            raise ValueError(f"net: {self.data} has a label for each {has}; accepted are {accepted}, not {net}")
        batch = (SEGMENTED_BATCH if segmented else BATCH) if self.batch_size is None else self.batch_size
        return replace(self, net=net, batch_size=batch)

    @property
    def starts_trained(self) -> bool:
        """Whether the dense network is trained already."""
        return self.weights is not None or self.trained or self.net.endswith(SUFFIX)

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
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def same_work(self, other: dict[str, Any]) -> list[str]:
        """The settings in which `other` (a `to_dict`) would train otherwise; where its files lie, and what is exported
        at the end, does not count."""
        mine = self.to_dict()
        return [key for key in mine if key not in ("out", "export", "target") and mine[key] != other.get(key)]
