"""What is learnt: moving digits, adrenal glands as wholes, the parts of the hippocampus voxel by voxel."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.evidence.settings import Setting
from lrw.data import SPLITS, Split, Volumes, load_medmnist, load_segmentation, moving_digits
from lrw.job.training import evaluate
from lrw.layers import evaluating
from lrw.nets import C3D, UNet3D

SMOOTHING = 0.05  # of classes
FILES = {"adrenal": "adrenalmnist3d.npz", "hippocampus": "hippocampus_260_uint8_48x64x48.npz"}


@dataclass(frozen=True)
class Task:
    """Data, network, loss and what is measured on the test split; `loss(logits, labels)`, `score(net)` 0..1."""

    name: str
    metric: str
    load: Callable[[], Volumes]
    build: Callable[[Volumes, int], nn.Module]  # (data, width)
    loss: Callable[[Tensor, Tensor], Tensor]
    measure: Callable[[nn.Module, Volumes], float]
    flips: bool = False  # mirrored along any axis it is the same thing

    @cached_property
    def volumes(self) -> Volumes:
        """The data, loaded once a process."""
        return self.load()

    @property
    def example(self) -> Tensor:
        """One test sample [1, C, D, H, W]."""
        return next(self.volumes.batches("test", 1))[0]


def missing(name: str, data: Path) -> str | None:
    """Why a task cannot be run, None where it can."""
    path = None if name not in FILES else data / FILES[name]
    return None if path is None or path.is_file() else f"no {path}"


def task(name: str, setting: Setting, data: Path, seed: int) -> Task:
    """The task of that name; of the hippocampus the fold tested is the seed's. Raises KeyError for other names."""
    tasks = {
        "digits": Task(
            name, "accuracy", lambda: moving_digits(seed=seed, count=setting.clips), _c3d, _class_loss, _accuracy
        ),
        "adrenal": Task(
            name, "AUC", lambda: load_medmnist(data / FILES["adrenal"]), _c3d, _class_loss, _auc, flips=True
        ),
        "hippocampus": Task(
            name,
            "Dice",
            lambda: _subsampled(load_segmentation(data / FILES["hippocampus"], fold=seed % 5), setting.subsample),
            lambda volumes, width: UNet3D(volumes.channels, len(volumes.classes), width=width, levels=3),
            _voxel_loss,
            _dice,
        ),
    }
    return tasks[name]


def _c3d(volumes: Volumes, width: int) -> nn.Module:
    return C3D(volumes.channels, len(volumes.classes), volumes.size, width=width)


def _class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)


def _accuracy(net: nn.Module, volumes: Volumes) -> float:
    return evaluate(net, volumes, "test").accuracy


def _auc(net: nn.Module, volumes: Volumes) -> float:
    auc = evaluate(net, volumes, "test").auc
    assert auc is not None
    return auc


def _voxel_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice of the classes other than background, over the batch."""
    shares = logits.softmax(1)[:, 1:]
    truth = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(shares.dtype)
    dims = (0, *range(2, logits.dim()))
    dice = (2 * (shares * truth).sum(dims) + 1) / ((shares + truth).sum(dims) + 1)
    return F.cross_entropy(logits, labels) + 1 - dice.mean()


def _dice(net: nn.Module, volumes: Volumes) -> float:
    with torch.no_grad(), evaluating(net):
        each = [sample_dice(net(images), labels) for images, labels in volumes.batches("test", 8)]
    return float(torch.cat(each).mean())


def sample_dice(logits: Tensor, labels: Tensor) -> Tensor:
    """[N]: of each sample, mean over classes other than background; a class in neither counts as found."""
    found, values = logits.argmax(1), []
    for label in range(1, logits.shape[1]):
        ours, theirs = ((x == label).flatten(1).sum(1) for x in (found, labels))
        both = ((found == label) & (labels == label)).flatten(1).sum(1)
        values.append(torch.where(ours + theirs > 0, 2 * both / (ours + theirs).clamp_min(1), 1.0))
    return torch.stack(values).mean(0)


def _subsampled(volumes: Volumes, step: int) -> Volumes:
    if step == 1:
        return volumes
    grid = (slice(None, None, step),) * 3
    splits = [volumes.split(name) for name in SPLITS]
    thin = [Split(s.images[(..., *grid)].contiguous(), s.labels[(..., *grid)].contiguous()) for s in splits]
    return Volumes(f"{volumes.name} / {step}", volumes.classes, *thin)
