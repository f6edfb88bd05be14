"""MedMNIST 3D files, 28^3 and 64^3: Yang et al., "MedMNIST v2", Scientific Data 10:41, 2023."""

from pathlib import Path

import numpy as np
import torch

from lrw.data.npz_file import as_labels, read_arrays
from lrw.data.volumes import SPLITS, Split, Volumes


def load_medmnist(path: str | Path) -> Volumes:
    """Read a MedMNIST 3D `.npz`: grey images uint8 `[n, D, H, W]`, labels `[n, 1]`, with its official splits.

    The file holds no class names: the classes are "0", "1", ... and MOST_CLASSES of `lrw.data.limits` at most.
    Pickled arrays are never read; arrays of more than MOST_BYTES together are refused before anything is unpacked.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an `.npz`, an array that is missing, pickled, too large, or of a wrong shape or dtype; a label
            out of range. The message names the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no MedMNIST file at {path}")
    wanted = [f"{name}_{part}" for name in SPLITS for part in ("images", "labels")]
    arrays = read_arrays(path, wanted, "a MedMNIST 3D .npz")
    splits = {name: _split(arrays, name, path) for name in SPLITS}
    count = 1 + max(int(split.labels.max()) for split in splits.values())
    classes = tuple(str(label) for label in range(count))
    return Volumes(path.stem, classes, splits["train"], splits["val"], splits["test"])


def _split(arrays: dict[str, np.ndarray], name: str, path: Path) -> Split:
    images, labels = arrays[f"{name}_images"], arrays[f"{name}_labels"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.size == 0:
        raise ValueError(
            f"{path}: {name}_images must be uint8 [n, D, H, W] and not empty, got {images.dtype} {list(images.shape)}"
        )
    if images.shape[3] == 3:  # [n, H, W, 3] of MedMNIST's 2D sets has the same number of axes
        raise ValueError(f"{path}: {name}_images {list(images.shape)} look like 2D images in colour, not volumes")
    if labels.dtype.kind not in "ui" or labels.shape not in {(len(images), 1), (len(images),)}:
        raise ValueError(
            f"{path}: {name}_labels must be integers [{len(images)}, 1], got {labels.dtype} {list(labels.shape)}"
        )
    return Split(torch.from_numpy(images)[:, None], as_labels(labels.reshape(-1), f"{name}_labels", path))
