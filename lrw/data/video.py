"""Folders of video clips, one sub-folder per class: the layout of UCF101 (Soomro et al., arXiv 1212.0402)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lrw.checks import check_volume_size
from lrw.data.folders import load_classes
from lrw.data.video_file import read_clip
from lrw.data.volumes import Volumes

SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
"""How the names of clips end."""


def load_video(folder: str | Path, *, seed: int = 0, size: Sequence[int] = (16, 112, 112)) -> Volumes:
    """Read a folder of class folders of clips as RGB images uint8 `[N, 3, D, H, W]`.

    D frames are taken evenly over the clip's time (a shorter clip repeats frames), turned as the file says they are
    to be shown, scaled to cover H, W and cropped around the centre. Each class is split on its own, about 70, 15, 15 %,
    with `seed`. All samples stay in memory: 600 kB per clip at the default size.

    Raises:
        FileNotFoundError: no such folder.
        ImportError: PyAV is not installed.
        ValueError: a wrong `size`; no class folder with clips; a class of fewer than three; a clip that does
            not decode, which the message names.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder at {folder}")
    sides = check_volume_size(size, "size")
    return load_classes(folder, SUFFIXES, partial(_read, size=sides), torch.Generator().manual_seed(seed))


def _read(path: Path, size: tuple[int, int, int]) -> Tensor:
    """Decode one clip: uint8 `[3, D, H, W]`."""
    return torch.from_numpy(read_clip(path, size)).permute(3, 0, 1, 2)
