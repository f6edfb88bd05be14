"""Small data sets on disk as the loaders expect them, the folder of the real ones, and when two loads are equal."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrw.data import SPLITS, Volumes

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real volumes of ../shared/data are not here")


def identical(first: Volumes, second: Volumes) -> bool:
    pairs = [(first.split(name), second.split(name)) for name in SPLITS]
    return first.classes == second.classes and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs
    )


def medmnist_arrays(size: tuple[int, ...] = (4, 5, 6)) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, *size), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    return arrays


def write_nifti(
    path: Path, values: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0), flip: bool = False
) -> None:
    """Write `values` [x, y, z(, c)]; `flip` stores the x axis right to left, with the affine that says so."""
    import nibabel

    image: Any = nibabel.Nifti1Image
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing, 1.0])
    if flip:
        values = values[::-1]
        affine[0] = [-spacing[0], 0, 0, spacing[0] * (values.shape[0] - 1)]
    image(np.ascontiguousarray(values), affine).to_filename(path)


def write_decathlon(folder: Path, count: int = 4) -> None:
    """Volumes 12x10x8 (x, y, z): background 20, a block of label 1 at 200 and one of label 2 at 100."""
    rng = np.random.default_rng(0)
    for index in range(count):
        labels = np.zeros((12, 10, 8), dtype=np.uint8)
        labels[2:5, 3:6, 2:5] = 1
        labels[7:10, 4:7, 3:6] = 2
        grey = np.choose(labels, [20, 200, 100]) + rng.integers(0, 2, labels.shape)
        write_nifti(folder / "imagesTr" / f"v{index}.nii.gz", grey.astype(np.int16))
        write_nifti(folder / "labelsTr" / f"v{index}.nii.gz", labels)
    # Archives packed on a Mac bring these along; they are no volumes.
    (folder / "imagesTr" / "._v0.nii.gz").write_bytes(b"not a volume")


def write_clip(
    path: Path,
    frames: np.ndarray,
    codec: str = "mpeg4",
    *,
    times: Sequence[int] | None = None,
    between: int = 0,
    container_format: str | None = None,
) -> None:
    """Encode RGB frames uint8 [D, H, W, 3], shown at 25 a second or at `times` in ms, `between` of them as B-frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), mode="w", format=container_format) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.max_b_frames = between
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for index, frame in enumerate(frames):
            shown: Any = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if times is not None:
                shown.pts, shown.time_base = times[index], Fraction(1, 1000)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())


def ramp_clip(count: int, colour: tuple[int, int, int], height: int = 48, width: int = 64) -> np.ndarray:
    """Frame t is `colour` at t / (count - 1) of its brightness."""
    levels = np.linspace(0, 1, count)[:, None] * np.array(colour)
    return np.broadcast_to(levels[:, None, None, :], (count, height, width, 3)).round().astype(np.uint8)


def write_clips(folder: Path, suffix: str = ".mp4", count: int = 3) -> None:
    for index in range(count):
        write_clip(folder / "red" / f"{index}{suffix}", ramp_clip(20, (250, 0, 0)))
        write_clip(folder / "blue" / f"{index}{suffix}", ramp_clip(20, (0, 0, 250)))
