"""What the loaders of files share: finding files in class folders, reading them, dealing them to splits."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from lrw.data.split import three_ways
from lrw.data.volumes import SPLITS, Split, Volumes


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files of `folder` whose lower-case name ends in one of `suffixes`, by name; dot files are left out.

    Archives packed on a Mac hold a "._name" beside each file, which is not a volume.
    """
    found = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted(path for path in found if path.name.lower().endswith(suffixes))


def class_folders(folder: Path, suffixes: tuple[str, ...]) -> dict[str, list[Path]]:
    """Sub-folder name -> its files of that kind, by name; sub-folders without any are left out."""
    inner = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return {path.name: found for path in inner if (found := files_in(path, suffixes))}


def load_classes(
    folder: Path, suffixes: tuple[str, ...], read: Callable[[Path], Tensor], generator: torch.Generator
) -> Volumes:
    """Read one sample per file, class = sub-folder, and split each class on its own.

    `read` returns uint8 `[C, D, H, W]`, of one shape for all files.

    Raises:
        ValueError: no class folder, a class of fewer than three files, files of different channel counts.
    """
    classes = class_folders(folder, suffixes)
    if not classes:
        raise ValueError(f"{folder} holds no class folder with files ending in {', '.join(suffixes)}")
    chosen: dict[str, list[tuple[Path, int]]] = {name: [] for name in SPLITS}
    for label, (class_name, paths) in enumerate(classes.items()):
        for name, indices in three_ways(len(paths), f"class {class_name!r} in {folder}", generator).items():
            chosen[name].extend((paths[index], label) for index in indices)
    splits = {name: _split(samples, read) for name, samples in chosen.items()}
    return Volumes(folder.name, tuple(classes), splits["train"], splits["val"], splits["test"])


def _split(samples: list[tuple[Path, int]], read: Callable[[Path], Tensor]) -> Split:
    paths, labels = zip(*samples, strict=True)
    return Split(stack_alike(((path, read(path)) for path in paths), len(paths)), torch.tensor(labels))


def stack_alike(images: Iterable[tuple[Path, Tensor]], count: int) -> Tensor:
    """Stack `count` images uint8 `[C, D, H, W]` into `[count, C, D, H, W]`, holding each only once.

    Raises:
        ValueError: an image whose shape is not the first one's; the message names its file.
    """
    stacked: Tensor | None = None
    for index, (path, image) in enumerate(images):
        if stacked is None:
            stacked = image.new_empty((count, *image.shape))
        if image.shape != stacked.shape[1:]:
            raise ValueError(
                f"{path}: [C, D, H, W] must be {list(stacked.shape[1:])} as in the first file, got {list(image.shape)}"
            )
        stacked[index] = image
    if stacked is None:
        raise ValueError("no image to stack")
    return stacked
