"""Volumes and their labels as plain NumPy arrays: an `.npz`, or a folder of `.npy` files."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lrw.data.npz_file import as_labels, as_numbers, names, read_array, read_arrays
from lrw.data.split import three_ways
from lrw.data.volumes import SPLITS, Split, Volumes

ARRAYS = ("images", "labels")
FOLD = "fold"


def load_arrays(path: str | Path, *, fold: int | None = None, seed: int = 0) -> Volumes:
    """Read the arrays `images` and `labels` of an `.npz`, or of a folder as `images.npy` and `labels.npy`.

    Images are `[n, D, H, W]` or `[n, C, D, H, W]`: uint8 are grey levels, which batches normalise; other real numbers
    are what a network takes, and stay as they are (float32). Labels are whole numbers from 0, one a volume (`[n]` or
    `[n, 1]`) or one a voxel (`[n, D, H, W]`). Each value that occurs is a class by that name, the least the first:
    MOST_CLASSES of `lrw.data.limits` at most, from 0 to one less, and two at least.

    A third array `fold` `[n]`, whole numbers from 0, makes it one fold of a cross-validation: test samples are those of
    `fold` (None: the first), validation samples those of the next one, all others are for training. Without it samples
    are dealt to the splits with `seed`. Pickled arrays are never read; arrays of more than MOST_BYTES together are
    refused before anything is unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no archive; an array that is missing, pickled, too large, or of a wrong shape or dtype; an image
            with numbers that are not finite; a label out of range; fewer than three samples or folds, or no fold of
            that number. The message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no arrays at {path}")
    arrays = _read(path)
    images, labels = _images(arrays["images"], path), arrays["labels"]
    sizes = {(len(images),), (len(images), 1), (len(images), *images.shape[2:])}
    if labels.dtype.kind not in "ui" or labels.shape not in sizes:
        accepted = " or ".join(str(list(size)) for size in sorted(sizes, key=len))
        raise ValueError(f"{path}: labels must be integers {accepted}, got {labels.dtype} {list(labels.shape)}")
    values, numbers = _places(as_labels(labels if labels.ndim > 2 else labels.reshape(-1), "labels", path))
    if len(values) < 2:
        raise ValueError(f"{path}: labels are all {int(values[0])}; accepted are two classes or more")
    parts = _parts(arrays.get(FOLD), fold, len(images), path, seed)
    splits = [Split(images[parts[name]], numbers[parts[name]]) for name in SPLITS]
    return Volumes(path.stem, tuple(map(str, values.tolist())), *splits)


def held_by(path: Path) -> bool:
    """Whether `path` is an `.npz` or a folder that `load_arrays` reads."""
    if path.is_dir():
        return all((path / f"{name}.npy").is_file() for name in ARRAYS)
    return path.suffix.lower() == ".npz" and set(ARRAYS) <= set(names(path))


def _read(path: Path) -> dict[str, np.ndarray]:
    if path.is_dir():
        there = [name for name in (*ARRAYS, FOLD) if name in ARRAYS or (path / f"{name}.npy").exists()]
        return {name: read_array(path / f"{name}.npy") for name in there}
    with_fold = (*ARRAYS, FOLD) if FOLD in names(path) else ARRAYS
    return read_arrays(path, with_fold, "an .npz of images and labels")


def _images(array: np.ndarray, path: Path) -> Tensor:
    """`[n, C, D, H, W]`, uint8 or float32."""
    if array.dtype.kind not in "fiub" or array.ndim not in (4, 5) or array.size == 0:
        raise ValueError(
            f"{path}: images must be numbers [n, D, H, W] or [n, C, D, H, W] and not empty, got {array.dtype} "
            f"{list(array.shape)}"
        )
    images = torch.from_numpy(array) if array.dtype == np.uint8 else as_numbers(array)
    if images.is_floating_point():
        wrong = (~images.isfinite()).flatten(1).any(1)
        if wrong.any():
            raise ValueError(f"{path}: images[{int(wrong.nonzero()[0])}] holds numbers that are not finite")
    return images if images.ndim == 5 else images[:, None]


def _places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """(the values that occur, rising; of each label its place among them: int64, or int16 where each voxel has one).

    By counting, since there are few values and many voxels.
    """
    there = torch.bincount(labels.flatten()) > 0
    places = (there.cumsum(0) - 1).to(torch.int64 if labels.ndim == 1 else torch.int16)
    return there.nonzero().flatten(), places[labels]


def _parts(folds: np.ndarray | None, fold: int | None, count: int, path: Path, seed: int) -> dict[str, Tensor]:
    """The indices of the samples of each split."""
    if folds is None:
        if fold is not None:
            raise ValueError(f"fold: {fold!r}; {path} has no array 'fold'")
        dealt = three_ways(count, f"samples in {path}", torch.Generator().manual_seed(seed))
        return {name: torch.tensor(indices) for name, indices in dealt.items()}
    if folds.dtype.kind not in "ui" or folds.shape != (count,):
        raise ValueError(f"{path}: fold must be integers [{count}], got {folds.dtype} {list(folds.shape)}")
    numbers = sorted(set(folds.tolist()))
    tested = numbers[0] if fold is None else fold
    if len(numbers) < 3 or tested not in numbers:
        raise ValueError(f"fold: {tested!r}; {path} has folds {numbers}, of which there must be three")
    following = numbers[(numbers.index(tested) + 1) % len(numbers)]
    chosen = {"train": (folds != tested) & (folds != following), "val": folds == following, "test": folds == tested}
    return {name: torch.from_numpy(there.nonzero()[0]) for name, there in chosen.items()}
