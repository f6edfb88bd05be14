"""Medical Segmentation Decathlon tasks as cubes, named by the label of their centre voxel or with a label a voxel."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrw.data.folders import files_in, stack_alike
from lrw.data.limits import MOST_CLASSES, MOST_TEXT
from lrw.data.nifti_file import SUFFIXES, NiftiVolume, as_grey, as_labels, read_nifti
from lrw.data.parsing import parsing
from lrw.data.split import three_ways
from lrw.data.volumes import SPLITS, Split, Volumes

_MOST_APART = 0.1  # of a voxel: rounding of an affine stays far below, a shift that moves labels far above


def load_decathlon(
    folder: Path, size: tuple[int, int, int], cubes_per_class: int, generator: torch.Generator, *, segmented: bool
) -> Volumes:
    """Read `folder/imagesTr` and `folder/labelsTr`; see `lrw.data.nifti.load_nifti`.

    Raises:
        FileNotFoundError: an image without its label map.
        ValueError: fewer than three volumes; a file that is unreadable or does not fit its label map; label
            maps of a single value, or of more than MOST_CLASSES.
    """
    paths = files_in(folder / "imagesTr", SUFFIXES)
    missing = [path.name for path in paths if not (folder / "labelsTr" / path.name).is_file()]
    if missing:
        raise FileNotFoundError(f"no label map at {folder / 'labelsTr' / missing[0]} for the image of that name")
    indices = three_ways(len(paths), f"volumes in {folder / 'imagesTr'}", generator)
    drawn = {
        name: [_cubes(paths[index], size, cubes_per_class, generator, segmented) for index in indices[name]]
        for name in SPLITS
    }
    values = torch.unique(torch.cat([cubes.values for parts in drawn.values() for cubes in parts]))
    if len(values) < 2:
        raise ValueError(f"{folder / 'labelsTr'}: label maps must hold at least two values, got {values.tolist()}")
    if len(values) > MOST_CLASSES:
        raise ValueError(
            f"{folder / 'labelsTr'}: label maps must hold at most {MOST_CLASSES} values, got {len(values)}"
        )
    splits = [_split(drawn[name], values) for name in SPLITS]
    return Volumes(folder.name, _names(folder, values), *splits)


@dataclass(frozen=True)
class _Cubes:
    """Of one volume: images uint8 `[n, C, D, H, W]`, and into the `values` that its labels have, in rising order, int16
    indices, of cubes `[n]` or voxels `[n, D, H, W]`."""

    path: Path
    images: Tensor
    values: Tensor
    indices: Tensor


def _split(parts: list[_Cubes], values: Tensor) -> Split:
    """All cubes of a split; a label is its place among `values`."""
    images = stack_alike(
        ((part.path, cube) for part in parts for cube in part.images), sum(len(p.images) for p in parts)
    )
    labels = torch.cat([torch.searchsorted(values, p.values).to(torch.int16)[p.indices.long()] for p in parts])
    return Split(images, labels if labels.ndim > 1 else labels.long())


def _cubes(
    path: Path, size: tuple[int, int, int], per_class: int, generator: torch.Generator, segmented: bool
) -> _Cubes:
    """Draw the cubes of one volume, with the labels of their centres or, `segmented`, of their voxels."""
    volume = read_nifti(path)
    labels = _read_labels(path.parent.parent / "labelsTr" / path.name, path, volume)
    grey = as_grey(volume, path)
    # Half a cube of black on each side lets a cube sit on any voxel; F.pad names the last axis first.
    rim = [amount for side in reversed(size) for amount in (side // 2, side - side // 2 - 1)]
    padded, padded_labels = functional.pad(grey, rim), functional.pad(labels, rim)
    cubes, found = [], []
    for value in torch.unique(labels).tolist():
        candidates = labels == value
        if value == 0:
            candidates &= _near(labels > 0, reach=max(1, min(size) // 4))
        for d, h, w in _draw_voxels(candidates, per_class, generator):
            cube = slice(d, d + size[0]), slice(h, h + size[1]), slice(w, w + size[2])
            cubes.append(padded[:, *cube])
            found.append(padded_labels[cube] if segmented else labels.new_tensor(value))
    if not cubes:
        raise ValueError(f"{path}: its label map holds no labelled voxel")
    kept = torch.stack(found)
    values = torch.unique(kept)
    return _Cubes(path, torch.stack(cubes), values, torch.searchsorted(values, kept).to(torch.int16))


def _read_labels(path: Path, image_path: Path, image: NiftiVolume) -> Tensor:
    """The label map int64 `[D, H, W]` of an image, which must have its shape and lie where it lies."""
    labels = read_nifti(path)
    if len(labels.stored) != 1 or labels.size != image.size:
        raise ValueError(
            f"{path}: shape must be {list(image.size)} as in {image_path}, got {list(labels.stored.shape)}"
        )
    apart = _apart(image, labels) / min(image.spacing)
    if apart > _MOST_APART:
        raise ValueError(
            f"{path}: must lie where {image_path} lies, their corners are {apart:.3g} voxels apart; "
            f"accepted are at most {_MOST_APART}"
        )
    return as_labels(labels, path)[0]


def _apart(first: NiftiVolume, second: NiftiVolume) -> float:
    """The longest way between equal corners of two volumes of one size, in millimetres."""
    corners = np.array([(*corner, 1) for corner in product(*((0, side - 1) for side in reversed(first.size)))])
    moved = corners @ (first.affine - second.affine).T
    return float(np.linalg.norm(moved[:, :3], axis=1).max())


def _near(mask: Tensor, reach: int) -> Tensor:
    """Voxels at most `reach` away from `mask` along every axis, bool `[D, H, W]`."""
    grown = mask.float()[None]
    for axis in range(3):
        window = [1, 1, 1]
        window[axis] = 2 * reach + 1
        grown = functional.max_pool3d(grown, window, stride=1, padding=[side // 2 for side in window])
    return grown[0] > 0


def _draw_voxels(candidates: Tensor, count: int, generator: torch.Generator) -> list[list[int]]:
    """`count` random voxels of a bool `[D, H, W]`, different ones if it has as many; none if it is empty."""
    voxels = candidates.nonzero()
    if len(voxels) == 0:
        return []
    order = torch.randperm(len(voxels), generator=generator)
    drawn: list[list[int]] = voxels[order[torch.arange(count) % len(voxels)]].tolist()
    return drawn


def _names(folder: Path, values: Tensor) -> tuple[str, ...]:
    """Class names of the label values, from `dataset.json` where it names them, otherwise "label 2"."""
    description = folder / "dataset.json"
    named = _read_names(description) if description.is_file() else {}
    defaults = {value: "background" if value == 0 else f"label {value}" for value in values.tolist()}
    return tuple(named.get(str(value), default) for value, default in defaults.items())


def _read_names(path: Path) -> dict[str, str]:
    """The table of labels of a description: label -> its name, which nnU-Net writes as name -> label.

    Names of several labels at once (its regions) are passed over.
    """
    with parsing(path, "is not a Decathlon description with a table of labels"):
        if path.stat().st_size > MOST_TEXT:
            raise ValueError(f"it has {path.stat().st_size} bytes; accepted are at most {MOST_TEXT}")
        description = json.loads(path.read_text(encoding="utf-8"))
        named: dict[str, str] = {}
        for key, value in description.get("labels", {}).items():
            label, name = (key, value) if isinstance(value, str) else (str(value), key)
            if isinstance(value, list) and all(isinstance(part, int) for part in value):
                continue
            if not label.isdecimal() or not name.isprintable():
                raise ValueError(f"{key!r}: {value!r} in labels; accepted are a number and its printable name")
            named[label] = name
        return named
