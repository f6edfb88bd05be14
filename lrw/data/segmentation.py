"""Packed volumes with a label for each voxel, in one `.npz`, as the folds of a cross-validation."""

from pathlib import Path

import numpy as np
import torch

from lrw.data.npz_file import as_labels, read_arrays
from lrw.data.volumes import Split, Volumes

ARRAYS = ("images", "labels", "fold")


def load_segmentation(path: str | Path, *, fold: int = 0) -> Volumes:
    """Read images uint8 `[n, D, H, W]`, labels of the same shape and `fold` `[n]`, whole numbers from 0.

    Test samples are those of `fold`, validation samples those of the next one, all others are for training. Classes are
    "0", "1", ... and MOST_CLASSES of `lrw.data.limits` at most. Pickled arrays are never read; arrays of more than
    MOST_BYTES together are refused before anything is unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an `.npz`, an array that is missing, pickled, too large, or of a wrong shape or dtype; a label
            out of range; fewer than three folds, or no fold of that number. The message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no segmentation file at {path}")
    arrays = read_arrays(path, ARRAYS, "an .npz of segmented volumes")
    images, labels, folds = (arrays[name] for name in ARRAYS)
    _check(images, labels, folds, path)
    numbers = sorted(set(folds.tolist()))
    if len(numbers) < 3 or fold not in numbers:
        raise ValueError(f"fold: {fold!r}; {path} has folds {numbers}, of which there must be three")
    following = numbers[(numbers.index(fold) + 1) % len(numbers)]
    parts = ((folds != fold) & (folds != following), folds == following, folds == fold)
    splits = [Split(torch.from_numpy(images[part])[:, None], as_labels(labels[part], "labels", path)) for part in parts]
    return Volumes(path.stem, tuple(str(label) for label in range(1 + int(labels.max()))), *splits)


def _check(images: np.ndarray, labels: np.ndarray, folds: np.ndarray, path: Path) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise ValueError(
            f"{path}: images must be uint8 [n, D, H, W] and not empty, got {images.dtype} {list(images.shape)}"
        )
    if labels.dtype.kind not in "ui" or labels.shape != images.shape:
        raise ValueError(
            f"{path}: labels must be integers {list(images.shape)}, got {labels.dtype} {list(labels.shape)}"
        )
    if folds.dtype.kind not in "ui" or folds.shape != (len(images),):
        raise ValueError(f"{path}: fold must be integers [{len(images)}], got {folds.dtype} {list(folds.shape)}")
