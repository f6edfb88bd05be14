"""One NIfTI file as a tensor: axes in a fixed order, grey values scaled to uint8."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lrw.data.optional import require

SUFFIXES = (".nii", ".nii.gz")
"""How the names of NIfTI files end."""

_LOW, _HIGH = 0.5, 99.5


def read_nifti(path: Path) -> tuple[Tensor, tuple[float, float, float]]:
    """Return the values float32 `[C, D, H, W]` and the voxel spacing along D, H, W.

    The axes are turned to the nearest right-anterior-superior ones and reversed: D runs from foot to head, H
    from back to front, W from left to right. A 3-D file has one channel.

    Raises:
        ImportError: nibabel is not installed.
        ValueError: the file is not NIfTI, is cut short, or is neither 3-D nor 4-D.
    """
    nibabel = require("nibabel", "nibabel")
    try:
        image = nibabel.load(path)
        # nibabel tells spatial axes from the header only for 3-D and up.
        if len(image.shape) not in (3, 4):
            raise ValueError(f"it must have 3 or 4 axes, has shape {image.shape}")
        image = nibabel.as_closest_canonical(image)
        values = np.asarray(image.dataobj, dtype=np.float32)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path} is not a readable NIfTI volume: {error}") from error
    if values.size == 0:
        raise ValueError(f"{path} is not a readable NIfTI volume: it is empty, shape {values.shape}")
    if values.ndim == 3:
        values = values[..., None]
    spacing = tuple(float(step) for step in image.header.get_zooms()[:3])
    tensor = torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 1, 0)))
    return tensor, (spacing[2], spacing[1], spacing[0])


def as_grey(values: Tensor, path: Path) -> Tensor:
    """Clip each channel at its 0.5 and 99.5 percentile and scale to 0..255: uint8, same shape `[C, D, H, W]`.

    Not-a-number and infinite voxels count for no percentile; not-a-number becomes black. A channel whose two
    percentiles coincide (a sparse mask) is scaled by its extremes instead, a constant one becomes black.

    Raises:
        ValueError: a channel without one finite voxel.
    """
    grey = torch.empty(values.shape, dtype=torch.uint8)
    for channel, voxels in enumerate(values.numpy()):
        finite = voxels[np.isfinite(voxels)]
        if finite.size == 0:
            raise ValueError(f"{path}: channel {channel} holds no finite value")
        low, high = np.percentile(finite, (_LOW, _HIGH))
        if low == high:
            low, high = float(finite.min()), float(finite.max())
        scale = 255.0 / (high - low) if high > low else 0.0
        clipped = np.clip(np.nan_to_num(voxels, nan=low, posinf=high, neginf=low), low, high)
        grey[channel] = torch.from_numpy(np.rint((clipped - low) * scale).astype(np.uint8))
    return grey
