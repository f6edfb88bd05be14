"""Folders of video clips, one sub-folder per class: the layout of UCF101 (Soomro et al., arXiv 1212.0402)."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrw.checks import check_volume_size
from lrw.data.folders import load_classes
from lrw.data.optional import require
from lrw.data.volumes import Volumes

SUFFIXES = (".mp4", ".avi", ".mkv", ".webm", ".mov")
"""How the names of clips end."""


def load_video(folder: str | Path, *, seed: int = 0, size: Sequence[int] = (16, 112, 112)) -> Volumes:
    """Read a folder of class folders of clips as RGB images uint8 `[N, 3, D, H, W]`.

    D frames are taken evenly over the clip (a shorter clip repeats frames), scaled to cover H, W and cropped
    around the centre. Each class is split on its own, about 70, 15, 15 %, with `seed`. All samples stay in
    memory: 600 kB per clip at the default size.

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
    av = require("av", "PyAV")
    try:
        frames = _sample(av, path, size)
    except av.error.FFmpegError as error:
        raise ValueError(f"{path} does not decode as a video: {error}") from error
    return torch.from_numpy(frames).permute(3, 0, 1, 2)


def _sample(av: ModuleType, path: Path, size: tuple[int, int, int]) -> np.ndarray:
    """D frames spread evenly over the clip, uint8 `[D, H, W, 3]`."""
    # Containers misreport their length, so frames are picked by the packet count, and again if it was wrong.
    count = sum(1 for _ in _packets(av, path))
    for _ in range(2):
        wanted = _even(count, size[0])
        decoded, chosen = _decode(av, path, set(wanted), size[1:])
        if decoded == 0:
            raise ValueError(f"{path} does not decode as a video: it holds no frame")
        if decoded == count:
            return np.stack([chosen[index] for index in wanted])
        count = decoded
    raise ValueError(f"{path} does not decode as a video: the number of frames changes between readings")


def _even(count: int, wanted: int) -> list[int]:
    """Indices of the frames in the middle of `wanted` equal parts of `count` frames."""
    return [(2 * part + 1) * count // (2 * wanted) for part in range(wanted)]


def _packets(av: ModuleType, path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        yield from (packet for packet in container.demux(_stream(container, path)) if packet.size)


def _stream(container: Any, path: Path) -> Any:
    if not container.streams.video:
        raise ValueError(f"{path} does not decode as a video: it holds no video stream")
    return container.streams.video[0]


def _decode(av: ModuleType, path: Path, wanted: set[int], size: tuple[int, int]) -> tuple[int, dict[int, np.ndarray]]:
    """Decode the whole clip: the number of frames, and the `wanted` ones as uint8 `[H, W, 3]`."""
    decoded, chosen = 0, {}
    with av.open(str(path)) as container:
        stream = _stream(container, path)
        stream.thread_type = "AUTO"
        for frame in container.decode(stream):
            if decoded in wanted:
                chosen[decoded] = _covering(frame, size)
            decoded += 1
    return decoded, chosen


def _covering(frame: Any, size: tuple[int, int]) -> np.ndarray:
    """Scale a frame to cover (H, W) in proportion, crop around the centre: uint8 `[H, W, 3]`."""
    height, width = size
    scale = max(height / frame.height, width / frame.width)
    rows, columns = max(height, round(frame.height * scale)), max(width, round(frame.width * scale))
    # AREA averages where the frame shrinks; the default would alias.
    scaled = frame.reformat(width=columns, height=rows, format="rgb24", interpolation="AREA").to_ndarray()
    top, left = (rows - height) // 2, (columns - width) // 2
    cropped: np.ndarray = scaled[top : top + height, left : left + width]
    return cropped
