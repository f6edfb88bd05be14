"""One NIfTI file: its voxels as they are stored with axes in a fixed order, as grey values or as labels."""

import gzip
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from lrw.data.limits import MOST_CLASSES, MOST_DEFLATED, MOST_VOXELS
from lrw.data.optional import require
from lrw.data.parsing import parsing

SUFFIXES = (".nii", ".nii.gz")
"""How the names of NIfTI files end."""

_LOW, _HIGH = 0.5, 99.5
_LARGEST = 1e300  # differences of two such numbers are finite
_FARTHEST = 1e12  # no scanner is that many millimetres wide, and squares stay far from overflow
_FLATTEST = 1e-3  # volume of the voxel as a share of the box with its edges: below, two axes nearly coincide
_MOST_UNEVEN = 1000.0
_CHUNK = 2**20
_SILENT = logging.Logger(__name__, logging.CRITICAL + 1)  # nibabel tells what it mends without saying in which file


@dataclass(frozen=True)
class NiftiVolume:
    """Voxels as stored, `[C, D, H, W]`, the scaling to their values, and the affine from (w, h, d, 1) to a place in mm.

    The axes are turned to the nearest right-anterior-superior ones and reversed: D runs from foot to head, H from back
    to front, W from left to right.
    """

    stored: np.ndarray
    slope: float
    intercept: float
    affine: np.ndarray

    @property
    def size(self) -> tuple[int, ...]:
        """(D, H, W)."""
        return self.stored.shape[1:]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along D, H, W."""
        width, height, depth = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return depth, height, width


def read_nifti(path: Path) -> NiftiVolume:
    """Read the volume at `path`. A 3-D file has one channel.

    Orientation and spacing both come from the one affine that nibabel finds best: the sform, without one the qform,
    without both the pixdim.

    Raises:
        ImportError: nibabel is not installed.
        ValueError: the file is not NIfTI, is damaged anywhere, is not as long as its header claims, has more than
            MOST_VOXELS voxels (`lrw.data.limits`; checked before anything is allocated), is neither 3-D nor 4-D, holds
            colours or complex numbers, or has an affine that is not finite, is singular, or whose spacing differs by
            more than 1000 times between the axes. The message names the file.
    """
    nibabel = require("nibabel", "nibabel")
    with parsing(path, "is not a readable NIfTI volume"):
        with path.open("rb") as raw:
            file, bounds = _unpacked(raw, path)
            header = _read_header(nibabel, file)
            data = _read_voxels(file, header, bounds)
        slope, intercept = header.get_slope_inter()
        affine = _checked_affine(header)
        orientation = nibabel.io_orientation(affine)
        shape = header.get_data_shape()
        voxels = data.view(header.get_data_dtype()).reshape((*shape, 1)[:4], order="F")
        turned = nibabel.apply_orientation(voxels, orientation).transpose(3, 2, 1, 0)
        affine = affine @ nibabel.orientations.inv_ornt_aff(orientation, shape[:3])
        stored = np.ascontiguousarray(turned, dtype=turned.dtype.newbyteorder("="))
        return NiftiVolume(stored, 1.0 if slope is None else slope, intercept or 0.0, affine)


def _unpacked(raw: BinaryIO, path: Path) -> tuple[BinaryIO, tuple[int, int]]:
    """The bytes that are packed in `raw`, and the fewest and the most that they can be."""
    size = os.fstat(raw.fileno()).st_size
    if not path.name.lower().endswith(".gz"):
        return raw, (size, size)
    return cast(BinaryIO, gzip.GzipFile(fileobj=raw)), (1, size * MOST_DEFLATED)


def _read_header(nibabel: ModuleType, file: BinaryIO) -> Any:
    """The header, mended as nibabel does, but for sizes of zero: those it would take for one."""
    block = file.read(nibabel.Nifti2Header.sizeof_hdr)
    kinds = (nibabel.Nifti2Header, nibabel.Nifti1Header)
    kind = next((kind for kind in kinds if kind.may_contain_header(block)), None)
    if kind is None:
        raise ValueError(f"it starts with {block[:8]!r}, which is no NIfTI header")
    header = kind(block[: kind.sizeof_hdr], check=False)
    sizes = np.abs(header["pixdim"][1:4])
    header.check_fix(logger=_SILENT)
    header["pixdim"][1:4] = sizes
    if header["magic"].item() != kind.single_magic:
        raise ValueError(f"its voxels lie in another file, magic {header['magic'].item()!r}")
    return header


def _read_voxels(file: BinaryIO, header: Any, bounds: tuple[int, int]) -> np.ndarray:
    """All bytes of the voxels, after their number was compared with the limits, and the file read to its end."""
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    if len(shape) not in (3, 4):
        raise ValueError(f"it must have 3 or 4 axes, has shape {shape}")
    if dtype.kind not in "iuf":
        raise ValueError(f"it holds values of type {dtype}; accepted are integers and real numbers")
    voxels = math.prod(shape)
    if min(shape) < 1 or voxels > MOST_VOXELS:
        raise ValueError(f"its shape is {shape}; accepted are 1 to {MOST_VOXELS} voxels")
    start = header.get_data_offset()
    if start < header.single_vox_offset:
        raise ValueError(f"its voxels start at byte {start}, inside its header")
    size = start + voxels * dtype.itemsize
    least, most = bounds
    if not least <= size <= most:
        held = f"{most}" if least == most else f"at most {most}"
        raise ValueError(f"its header claims {size} bytes, it holds {held}")
    file.seek(start)
    return _read_whole(file, size - start)


def _read_whole(file: BinaryIO, size: int) -> np.ndarray:
    """The last `size` bytes of the file. Reading on to its end is what verifies the checksum of a gzip file."""
    data = np.empty(size, dtype=np.uint8)
    rest = data.data
    while rest:
        got = file.readinto(rest[:_CHUNK])  # type: ignore[attr-defined]
        if not got:
            raise ValueError(f"it ends {len(rest)} bytes before its header says")
        rest = rest[got:]
    if file.read(1):
        raise ValueError("it holds more bytes than its header claims")
    return data


def _checked_affine(header: Any) -> np.ndarray:
    affine: np.ndarray = np.asarray(header.get_best_affine(), dtype=np.float64)
    if not np.abs(affine).max() < _FARTHEST:
        raise ValueError(f"its affine {affine[:3].tolist()} holds NaN, infinity or more than {_FARTHEST:g} mm")
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    if steps.min() == 0 or abs(np.linalg.det(affine[:3, :3] / steps)) < _FLATTEST:
        raise ValueError(f"its affine {affine[:3].tolist()} is singular")
    if steps.max() > _MOST_UNEVEN * steps.min():
        raise ValueError(f"its voxel spacing {steps.tolist()} differs by more than {_MOST_UNEVEN:g} times")
    return affine


def as_grey(volume: NiftiVolume, path: Path) -> Tensor:
    """Clip each channel at its 0.5 and 99.5 percentile and scale to 0..255: uint8 `[C, D, H, W]`.

    Not-a-number and infinite voxels count for no percentile; not-a-number becomes black. A channel whose two
    percentiles coincide (a sparse mask) is scaled by its extremes instead, a constant one becomes black.

    Raises:
        ValueError: a channel without one finite voxel, or with one beyond 1e300.
    """
    grey = torch.empty(volume.stored.shape, dtype=torch.uint8)
    for channel, voxels in enumerate(volume.stored):
        finite = voxels[np.isfinite(voxels)]
        if finite.size == 0:
            raise ValueError(f"{path}: channel {channel} holds no finite value")
        lowest, highest = float(finite.min()), float(finite.max())
        if max(-lowest, highest) > _LARGEST:
            raise ValueError(
                f"{path}: channel {channel} goes from {lowest:g} to {highest:g}; accepted are at most {_LARGEST:g}"
            )
        low, high = _percentile(finite, _LOW), _percentile(finite, _HIGH)
        _scale(voxels, (low, high) if low < high else (lowest, highest), volume.slope < 0, grey[channel].numpy())
    return grey


def _percentile(values: np.ndarray, percent: float) -> float:
    """Interpolated as np.percentile does, but in doubles: differences of small integers overflow there."""
    position = (values.size - 1) * percent / 100
    below, above = math.floor(position), math.ceil(position)
    ordered = np.partition(values, (below, above))
    return float(ordered[below]) + (float(ordered[above]) - float(ordered[below])) * (position - below)


def _scale(voxels: np.ndarray, ends: tuple[float, float], inverted: bool, grey: np.ndarray) -> None:
    """Write voxels `[D, H, W]` as 0..255 between the two `ends`, slice by slice: doubles of all take eight times more.

    Grey does not depend on the scaling of the values but for its sign, so that they are taken as stored.
    """
    sign = -1.0 if inverted else 1.0
    low, high = sorted(sign * end for end in ends)
    if low == high:
        grey[:] = 0
        return
    for plane, shown in zip(voxels, grey, strict=True):
        values = np.nan_to_num(sign * plane.astype(np.float64), nan=low, posinf=high, neginf=low)
        shown[:] = np.rint((np.clip(values, low, high) - low) / (high - low) * 255)


def as_labels(volume: NiftiVolume, path: Path) -> Tensor:
    """The values as labels, int64 `[C, D, H, W]`: whole numbers from 0, each kept apart from every other.

    Raises:
        ValueError: others, numbers beyond those their type tells apart (2**24 of float32, 2**53 of float64 and of
            scaled values), more than MOST_CLASSES different ones. The message names the file.
    """
    values = volume.stored
    if (volume.slope, volume.intercept) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):  # what comes of it is no label
            values = values.astype(np.float64) * volume.slope + volume.intercept
    beyond = min(2**63, 2 ** (np.finfo(values.dtype).nmant + 1)) if values.dtype.kind == "f" else 2**63
    lowest, highest = values.min(), values.max()
    whole = values.dtype.kind != "f" or np.array_equal(np.rint(values), values)
    if not (whole and lowest >= 0 and highest < beyond):
        raise ValueError(
            f"{path}: a label map must hold whole numbers from 0, of {values.dtype} below {beyond}; "
            f"got {'others' if not whole else f'{lowest} to {highest}'}"
        )
    labels = torch.from_numpy(values.astype(np.int64))
    found = len(torch.unique(labels))
    if found > MOST_CLASSES:
        raise ValueError(f"{path}: a label map must hold at most {MOST_CLASSES} different labels, got {found}")
    return labels
