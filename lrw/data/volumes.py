"""Labelled volumes in memory: three splits of images, and the batches a training loop reads."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

SPLITS = ("train", "val", "test")
"""The names of the splits, in the order they are printed."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images `[N, C, D, H, W]`, uint8 (grey levels) or float32 (as networks take them), and labels: int64, one an image
    `[N]`, or int16 or int64, one a voxel `[N, D, H, W]`.

    `Volumes` checks them.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Volumes:
    """A labelled data set: `labels` index `classes`, all splits have the same C, D, H, W and kind of label.

    Raises:
        ValueError: no class; a split that is empty or has a wrong shape or dtype, a label outside the
            classes, a size that differs from the other splits'. The message names the split.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError(f"{self.name}: classes must hold at least one name, got none")
        for split_name in SPLITS:
            self._check(split_name)

    @property
    def channels(self) -> int:
        """C of the images."""
        return int(self.train.images.shape[1])

    @property
    def size(self) -> tuple[int, int, int]:
        """(D, H, W) of the images."""
        depth, height, width = self.train.images.shape[2:]
        return depth, height, width

    @property
    def segmented(self) -> bool:
        """Whether each voxel has a label, not each image."""
        return self.train.labels.ndim > 1

    @property
    def counts(self) -> dict[str, int]:
        """Samples per split."""
        return {split_name: len(self.split(split_name)) for split_name in SPLITS}

    def __len__(self) -> int:
        return sum(self.counts.values())

    def split(self, split_name: str) -> Split:
        """Return the split "train", "val" or "test".

        Raises:
            ValueError: any other name.
        """
        if split_name not in SPLITS:
            raise ValueError(f"split_name must be one of {', '.join(SPLITS)}, got {split_name!r}")
        chosen: Split = getattr(self, split_name)
        return chosen

    @cached_property
    def mean_and_std(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each channel of the training images, float32 `[C]`, in grey levels.

        A channel that never changes gets a deviation of one grey level, so that it normalises to zero. Of float32
        images 0 and 1: they are not normalised.
        """
        if self.train.images.is_floating_point():
            return torch.zeros(self.channels), torch.ones(self.channels)
        levels = torch.arange(256, dtype=torch.float64)
        # A histogram is exact and needs no float copy of the images, eight times their size.
        histograms = [
            torch.bincount(self.train.images[:, channel].flatten(), minlength=256).double()
            for channel in range(self.channels)
        ]
        shares = torch.stack([histogram / histogram.sum() for histogram in histograms])
        mean = shares @ levels
        variance = (shares * (levels - mean[:, None]) ** 2).sum(dim=1)
        return mean.float(), variance.sqrt().clamp(min=1.0).float()

    def batches(self, split_name: str, batch_size: int, *, seed: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images float32 `[n, C, D, H, W]`, their labels int64), n = `batch_size` but for the last.

        Grey levels are normalised with the training mean and deviation. With a `seed` the order is a permutation
        drawn from it, without one it is the stored order. A last batch of a single sample joins the batch
        before it when shuffled: training a batch norm on one value is an error in torch.

        Raises:
            ValueError: an unknown split, a batch size that is not an int of at least 1.
        """
        split = self.split(split_name)
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"batch_size must be an int of at least 1, got {batch_size!r}")
        order = torch.arange(len(split))
        starts = list(range(0, len(split), batch_size))
        if seed is not None:
            order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
            if batch_size > 1 and len(starts) > 1 and len(split) - starts[-1] == 1:
                starts.pop()
        ends = [*starts[1:], len(split)]
        return self._read(split, [order[start:end] for start, end in zip(starts, ends, strict=True)])

    def _read(self, split: Split, parts: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        mean, std = (value.view(-1, 1, 1, 1) for value in self.mean_and_std)
        for part in parts:
            yield (split.images[part].float() - mean) / std, split.labels[part].long()

    @property
    def _unit(self) -> str:
        return "a voxel" if self.segmented else "an image"

    def _check(self, split_name: str) -> None:
        split = self.split(split_name)
        where = f"{self.name}, split {split_name!r}"
        images, labels = split.images, split.labels
        if images.dtype not in (torch.uint8, torch.float32) or images.ndim != 5 or images.numel() == 0:
            raise ValueError(
                f"{where}: images must be uint8 or float32 [N, C, D, H, W] and not empty, got {images.dtype} "
                f"{list(images.shape)}"
            )
        shapes = [[len(images)], [len(images), *images.shape[2:]]]
        dtypes = (torch.int64,) if labels.ndim == 1 else (torch.int16, torch.int64)
        if labels.dtype not in dtypes or list(labels.shape) not in shapes:
            accepted = " or ".join(map(str, shapes))
            raise ValueError(f"{where}: labels must be int64 {accepted}, got {labels.dtype} {list(labels.shape)}")
        if labels.ndim != self.train.labels.ndim:
            raise ValueError(f"{where}: labels must be one {self._unit}, as in the training split")
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.classes):
            raise ValueError(
                f"{where}: labels must lie in 0..{len(self.classes) - 1}, got {int(labels.min())}..{int(labels.max())}"
            )
        if images.dtype != self.train.images.dtype:
            raise ValueError(f"{where}: images must be {self.train.images.dtype}, as in the training split")
        if images.shape[1:] != self.train.images.shape[1:]:
            raise ValueError(
                f"{where}: images must have the training split's [C, D, H, W] = "
                f"{list(self.train.images.shape[1:])}, got {list(images.shape[1:])}"
            )
