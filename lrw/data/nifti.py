"""Folders of NIfTI volumes: Medical Segmentation Decathlon tasks, and one sub-folder per class.

Source of the first layout: Antonelli et al., "The Medical Segmentation Decathlon", Nature Communications
13:4128, 2022. Cubes labelled by their centre voxel are our way to make a classification task of it.
"""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from lrw.checks import check_volume_size
from lrw.data.folders import load_classes
from lrw.data.limits import MOST_VOXELS
from lrw.data.nifti_cubes import load_decathlon
from lrw.data.nifti_file import SUFFIXES, as_grey, read_nifti
from lrw.data.volumes import Volumes

SIDE, SEGMENTED_SIDE = 24, 32  # of samples where no size is given: named ones, and cubes with a label a voxel


def load_nifti(
    folder: str | Path,
    *,
    seed: int = 0,
    size: Sequence[int] | None = None,
    cubes_per_class: int = 8,
    segmented: bool = True,
) -> Volumes:
    """Read a folder of `.nii` or `.nii.gz` volumes as images uint8 `[N, C, D, H, W]`, D from foot to head.

    Two layouts:
      - `imagesTr/` and `labelsTr/` with equal file names (Medical Segmentation Decathlon): cubes of `size`
        around voxels drawn with `seed`; `segmented`, each voxel has the label map's value, 0 outside of the volume;
        otherwise the class of a cube is that of its centre voxel. Each volume
        gives `cubes_per_class` cubes for every class it holds, some of them equal where the class has fewer
        voxels than that; background centres lie near a labelled voxel, outside the volume is black. Whole
        volumes, never cubes of one volume, are dealt to train, val and test. Class names come from
        `dataset.json` if present;
      - one sub-folder per class, one volume per file: resampled with its voxel spacing so that it covers
        `size`, then cropped around the centre. `cubes_per_class` is not used, nor is `segmented`.

    Without a `size` samples have 24 voxels a side, segmented ones 32.

    Volumes are turned to the nearest right-anterior-superior axes; the channels of a 4-D file are C. Grey
    values are clipped at the 0.5 and 99.5 percentile of the volume and scaled to 0..255. All samples stay in
    memory. A volume, as it is stored and as it is resampled, has MOST_VOXELS of `lrw.data.limits` at most, a label map
    MOST_CLASSES different labels.

    Raises:
        FileNotFoundError: no such folder; an image without its label map.
        ImportError: nibabel is not installed.
        ValueError: a wrong `size` or `cubes_per_class`; too few volumes; a file that is not a NIfTI volume, is damaged
            or too large (`lrw.data.nifti_file.read_nifti`), or does not fit its label map: in shape, or in place by
            more than a tenth of a voxel. The message names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    labelled = (folder / "imagesTr").is_dir()
    side = SEGMENTED_SIDE if segmented and labelled else SIDE
    sides = check_volume_size((side, side, side) if size is None else size, "size")
    if not isinstance(cubes_per_class, int) or cubes_per_class < 1:
        raise ValueError(f"cubes_per_class must be an int of at least 1, got {cubes_per_class!r}")
    generator = torch.Generator().manual_seed(seed)
    if labelled:
        return load_decathlon(folder, sides, cubes_per_class, generator, segmented=segmented)
    return load_classes(folder, SUFFIXES, partial(_read_covering, size=sides), generator)


def _read_covering(path: Path, size: tuple[int, int, int]) -> Tensor:
    """Read a volume as uint8 `[C, *size]`: resampled to cover the size, cropped around its centre."""
    volume = read_nifti(path)
    extent = [side * step for side, step in zip(volume.size, volume.spacing, strict=True)]
    scale = max(wanted / length for wanted, length in zip(size, extent, strict=True))
    covering = [max(wanted, round(length * scale)) for wanted, length in zip(size, extent, strict=True)]
    if len(volume.stored) * math.prod(covering) > MOST_VOXELS:
        raise ValueError(
            f"{path}: with a voxel spacing of {volume.spacing} it takes {covering} voxels to cover size {size}; "
            f"accepted are at most {MOST_VOXELS}"
        )
    grey = as_grey(volume, path)
    # Averaging first where an axis shrinks: plain interpolation would skip voxels.
    depth, height, width = (min(old, new) for old, new in zip(grey.shape[1:], covering, strict=True))
    covered = functional.adaptive_avg_pool3d(grey[None].float(), (depth, height, width))
    covered = functional.interpolate(covered, size=covering, mode="trilinear", align_corners=False)[0]
    for axis, (side, wanted) in enumerate(zip(covering, size, strict=True), start=1):
        covered = covered.narrow(axis, (side - wanted) // 2, wanted)
    return covered.round().to(torch.uint8)
