"""Labelled 3D data to train on: moving digits (scikit-learn), MedMNIST 3D, NIfTI and video folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lrw.data import arrays, nifti_file, video
from lrw.data.arrays import load_arrays
from lrw.data.digits import moving_digits
from lrw.data.folders import class_folders
from lrw.data.medmnist import load_medmnist
from lrw.data.nifti import load_nifti
from lrw.data.npz_file import names
from lrw.data.video import load_video
from lrw.data.volumes import SPLITS, Split, Volumes
from lrw_kernels.untrusted import shown

__all__ = [
    "SPLITS",
    "Split",
    "Volumes",
    "load",
    "load_arrays",
    "load_medmnist",
    "load_nifti",
    "load_video",
    "moving_digits",
]

_ACCEPTED = (
    "'digits', a MedMNIST 3D .npz file, an .npz or a folder of .npy files with images and labels, "
    "a folder with imagesTr/ and labelsTr/ of .nii or .nii.gz volumes, "
    "or a folder with one sub-folder per class of .nii or .nii.gz volumes or of clips "
    f"({', '.join(video.SUFFIXES)})"
)


def load(
    spec: str | Path = "digits", *, seed: int = 0, size: Sequence[int] | None = None, segmented: bool = True
) -> Volumes:
    """Load the data `spec` names; the loader is chosen by what is there.

    Args:
        spec: the word "digits" (write "./digits" for a folder of that name); a path to a MedMNIST 3D `.npz`; an `.npz`
            or a folder of `.npy` files with images and labels, see `load_arrays`; a folder of NIfTI volumes or of video
            clips, see `load_nifti` and `load_video`.
        seed: what is drawn at random (digits, cubes, splits) follows from it.
        size: (D, H, W); None takes the loader's own. Arrays have a fixed size.
        segmented: of volumes with label maps (`imagesTr/`, `labelsTr/`): True, each voxel keeps its label; False, each
            cube is named by that of its centre. Of other data it says nothing.

    Raises:
        FileNotFoundError: nothing at that path.
        ImportError: a library the loader needs is not installed; the message says what to install.
        ValueError: something that is no data of these kinds; a `size` that arrays do not have; whatever the loader
            refuses.
    """
    chosen: dict[str, Any] = {} if size is None else {"size": size}
    if spec == "digits":
        return moving_digits(seed=seed, **chosen)
    path = Path(spec)
    if not path.exists():
        raise FileNotFoundError(f"no data at {str(spec)!r}; accepted: {_ACCEPTED}")
    if arrays.held_by(path):
        return _of_size(load_arrays(path, seed=seed), path, size)
    if path.is_file() and path.suffix.lower() == ".npz":
        found = names(path)
        if not any(name.startswith(SPLITS) for name in found):
            raise ValueError(f"{path} holds {shown(found)}; accepted are images and labels, or MedMNIST's arrays")
        return _of_size(load_medmnist(path), path, size)
    if path.is_dir() and (path / "imagesTr").is_dir():
        return load_nifti(path, seed=seed, segmented=segmented, **chosen)
    if path.is_dir() and class_folders(path, nifti_file.SUFFIXES):
        return load_nifti(path, seed=seed, **chosen)
    if path.is_dir() and class_folders(path, video.SUFFIXES):
        return load_video(path, seed=seed, **chosen)
    raise ValueError(f"{str(spec)!r} is no data this library reads; accepted: {_ACCEPTED}")


def _of_size(volumes: Volumes, path: Path, size: Sequence[int] | None) -> Volumes:
    if size is not None and tuple(size) != volumes.size:
        raise ValueError(f"size must be None or the arrays' own {volumes.size} for {path}, got {tuple(size)}")
    return volumes
