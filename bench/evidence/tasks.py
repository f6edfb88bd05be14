"""What is learnt: moving digits, adrenal glands as wholes, the parts of the hippocampus voxel by voxel."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from bench.evidence.settings import SEEDS, Setting
from lrw.data import SPLITS, Split, Volumes, load_arrays, load_medmnist, moving_digits
from lrw.job.losses import class_loss, voxel_loss
from lrw.job.metrics import sample_dice
from lrw.layers import evaluating
from lrw.nets import C3D, UNet3D

FILES = {"adrenal": "adrenalmnist3d.npz", "hippocampus": "hippocampus_260_uint8_48x64x48.npz"}
AUC = "AUC"
LAST = torch.channels_last_3d  # in which training steps take a sixth less
AT_ONCE = 1 << 18  # voxels of test samples


@dataclass(frozen=True)
class Task:
    """Data, network, `loss(logits, labels)`, and what a network makes of a batch of samples: `outcomes(logits, labels)`
    [n]; the metric is their mean, or how well they tell the two classes apart where it is AUC."""

    name: str
    metric: str
    load: Callable[[], Volumes]
    build: Callable[[Volumes, int], nn.Module]  # (data, width)
    loss: Callable[[Tensor, Tensor], Tensor]
    outcomes: Callable[[Tensor, Tensor], Tensor]
    flips: bool = False  # mirrored along any axis it is the same thing

    @cached_property
    def volumes(self) -> Volumes:
        """The data, loaded once a process."""
        return self.load()

    @property
    def example(self) -> Tensor:
        """One test sample [1, C, D, H, W]."""
        return next(self.volumes.batches("test", 1))[0]

    @cached_property
    def numbered(self) -> Volumes:
        """The same volumes; what stands for a training sample's label is its number."""
        train = self.volumes.train
        names = tuple(map(str, range(len(train))))
        only = Split(train.images, torch.arange(len(train)))
        return Volumes(self.volumes.name, names, only, only, only)

    def samples(self, count: int, batch: int = 32) -> list[Tensor]:
        """Unlabelled training samples in batches [n, C, D, H, W]."""
        images = next(self.volumes.batches("train", count, seed=99))[0]
        return list(images.split(batch))

    def each(self, call: Callable[[Tensor], Tensor], batch: int | None = None) -> Tensor:
        """What `call`, images to logits, makes of every test sample [n], float32; `batch` of them at a time."""
        batch = max(1, AT_ONCE // prod(self.volumes.size)) if batch is None else batch
        return torch.cat([self.outcomes(call(images.contiguous(memory_format=LAST)), labels).float()
                          for images, labels in self.volumes.batches("test", batch)])  # fmt: skip

    def of(self, net: nn.Module) -> Tensor:
        """What `net` makes of every test sample [n]."""
        with torch.no_grad(), evaluating(net):
            return self.each(net)


def missing(name: str, data: Path) -> str | None:
    """Why a task cannot be run, None where it can."""
    path = None if name not in FILES else data / FILES[name]
    return None if path is None or path.is_file() else f"no {path}"


def task(name: str, setting: Setting, data: Path, seed: int) -> Task:
    """The task of that name; of volumes the third tested is the seed's. Raises KeyError for other names."""
    tasks = {
        "digits": Task(name, "accuracy", lambda: moving_digits(seed=seed, count=setting.clips, tests=setting.tests),
                       _c3d, class_loss, _right),
        "adrenal": Task(name, AUC, lambda: crossed(load_medmnist(data / FILES["adrenal"]), seed),
                        _c3d, class_loss, _margin, flips=True),
        "hippocampus": Task(
            name, "Dice",
            lambda: crossed(_subsampled(load_arrays(data / FILES["hippocampus"]), setting.subsample), seed),
            lambda volumes, width: UNet3D(volumes.channels, len(volumes.classes), width=width, levels=3),
            voxel_loss, sample_dice,
        ),
    }  # fmt: skip
    return tasks[name]


def crossed(volumes: Volumes, seed: int) -> Volumes:
    """All of `volumes` divided anew: the seed's part of SEEDS random ones for tests (and validation, which nobody looks
    at), the others for training. All seeds together test every volume once."""
    images, labels = (
        torch.cat([getattr(volumes.split(name), what) for name in SPLITS]) for what in ("images", "labels")
    )
    parts = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).chunk(SEEDS)
    tested = parts[seed % SEEDS]
    trained = torch.cat([part for i, part in enumerate(parts) if i != seed % SEEDS])
    train, test = (Split(images[part], labels[part]) for part in (trained.sort().values, tested.sort().values))
    return Volumes(volumes.name, volumes.classes, train, test, test)


def _c3d(volumes: Volumes, width: int) -> nn.Module:
    return C3D(volumes.channels, len(volumes.classes), volumes.size, width=width)


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.argmax(1) == labels


def _margin(logits: Tensor, _: Tensor) -> Tensor:
    return logits[:, 1] - logits[:, 0]


def _subsampled(volumes: Volumes, step: int) -> Volumes:
    if step == 1:
        return volumes
    grid = (slice(None, None, step),) * 3
    splits = [volumes.split(name) for name in SPLITS]
    thin = [Split(s.images[(..., *grid)].contiguous(), s.labels[(..., *grid)].contiguous()) for s in splits]
    return Volumes(f"{volumes.name} / {step}", volumes.classes, *thin)
