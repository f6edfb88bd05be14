"""Medical Segmentation Decathlon tasks as classification: cubes named by the label of their centre voxel."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from lrw.data.folders import files_in, stack_alike
from lrw.data.nifti_file import SUFFIXES, as_grey, read_nifti
from lrw.data.split import three_ways
from lrw.data.volumes import SPLITS, Split, Volumes


def load_decathlon(
    folder: Path, size: tuple[int, int, int], cubes_per_class: int, generator: torch.Generator
) -> Volumes:
    """Read `folder/imagesTr` and `folder/labelsTr`; see `lrw.data.nifti.load_nifti`.

    Raises:
        FileNotFoundError: an image without its label map.
        ValueError: fewer than three volumes; a file that is unreadable or does not fit its label map; label
            maps of a single value.
    """
    paths = files_in(folder / "imagesTr", SUFFIXES)
    missing = [path.name for path in paths if not (folder / "labelsTr" / path.name).is_file()]
    if missing:
        raise FileNotFoundError(f"no label map at {folder / 'labelsTr' / missing[0]} for the image of that name")
    indices = three_ways(len(paths), f"volumes in {folder / 'imagesTr'}", generator)
    drawn: dict[str, tuple[Tensor, Tensor]] = {}
    for name in SPLITS:
        parts = [_cubes(paths[index], size, cubes_per_class, generator) for index in indices[name]]
        images = [(paths[index], cubes) for index, (cubes, _) in zip(indices[name], parts, strict=True)]
        drawn[name] = _concatenate(images), torch.cat([values for _, values in parts])
    values = torch.unique(torch.cat([split_values for _, split_values in drawn.values()]))
    if len(values) < 2:
        raise ValueError(f"{folder / 'labelsTr'}: label maps must hold at least two values, got {values.tolist()}")
    splits = {name: Split(cubes, torch.searchsorted(values, own)) for name, (cubes, own) in drawn.items()}
    return Volumes(folder.name, _names(folder, values), splits["train"], splits["val"], splits["test"])


def _concatenate(images: list[tuple[Path, Tensor]]) -> Tensor:
    count = sum(len(cubes) for _, cubes in images)
    return stack_alike(((path, cube) for path, cubes in images for cube in cubes), count)


def _cubes(path: Path, size: tuple[int, int, int], per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw the cubes of one volume, uint8 `[n, C, *size]`, and the labels at their centres, int64 `[n]`."""
    values, _ = read_nifti(path)
    labels = _read_labels(path.parent.parent / "labelsTr" / path.name, path, values.shape)
    grey = as_grey(values, path)
    # Half a cube of black on each side lets a cube sit on any voxel; F.pad names the last axis first.
    rim = [amount for side in reversed(size) for amount in (side // 2, side - side // 2 - 1)]
    padded = functional.pad(grey, rim)
    cubes, centres = [], []
    for value in torch.unique(labels).tolist():
        candidates = labels == value
        if value == 0:
            candidates &= _near(labels > 0, reach=max(1, min(size) // 4))
        for d, h, w in _draw_voxels(candidates, per_class, generator):
            cubes.append(padded[:, d : d + size[0], h : h + size[1], w : w + size[2]])
            centres.append(value)
    if not cubes:
        raise ValueError(f"{path}: its label map holds no labelled voxel")
    return torch.stack(cubes), torch.tensor(centres)


def _read_labels(path: Path, image: Path, shape: torch.Size) -> Tensor:
    """Label map int64 `[D, H, W]` for an image of `shape` `[C, D, H, W]`."""
    values, _ = read_nifti(path)
    if values.shape[0] != 1 or values.shape[1:] != shape[1:]:
        raise ValueError(f"{path}: shape must be {list(shape[1:])} as in {image}, got {list(values.shape)}")
    labels = values[0].round().long()
    if not torch.equal(labels.float(), values[0]) or int(labels.min()) < 0:
        raise ValueError(f"{path}: a label map must hold whole numbers from 0, got others")
    return labels


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
    named: dict[str, str] = {}
    description = folder / "dataset.json"
    if description.is_file():
        try:
            labels = json.loads(description.read_text(encoding="utf-8")).get("labels", {})
            named = {str(key): str(name) for key, name in labels.items()}
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{description} is not a Decathlon description with a table of labels: {error}") from error
    defaults = {value: "background" if value == 0 else f"label {value}" for value in values.tolist()}
    return tuple(named.get(str(value), default) for value, default in defaults.items())
