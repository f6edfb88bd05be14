"""Clips come out as they are shown: frames by their time, not by their number, and turned as the file says."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lrw.data import load_video, video_file
from lrw.data.video_file import read_clip
from verify.unit.data.small import ramp_clip, write_clip

CORNERS = np.array([[250, 170], [90, 10]])
"""Grey of the four quarters of a stored frame."""


def levels(path: Path, depth: int) -> torch.Tensor:
    """Red of each of `depth` frames."""
    return torch.from_numpy(read_clip(path, (depth, 16, 16))[..., 0].astype(np.float32).mean(axis=(1, 2)))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_of_a_variable_rate_are_spread_by_time(tmp_path: Path, suffix: str) -> None:
    # Six frames in 1040 ms, of which the fifth is shown for 840 ms.
    path = tmp_path / f"clip{suffix}"
    write_clip(path, ramp_clip(6, (250, 0, 0)), times=(0, 40, 80, 120, 160, 1000))
    torch.testing.assert_close(levels(path, 4), torch.tensor([150.0, 200, 200, 200]), rtol=0, atol=8)
    # Middles of thirteen parts: 40, 120, 200, ..., 1000 ms.
    torch.testing.assert_close(levels(path, 13), torch.tensor([50.0, 150, *[200] * 10, 250]), rtol=0, atol=8)


def test_a_clip_that_starts_late_is_spread_from_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    write_clip(path, ramp_clip(6, (250, 0, 0)), times=(5000, 5040, 5080, 5120, 5160, 5200))
    torch.testing.assert_close(levels(path, 3), torch.tensor([50.0, 150, 250]), rtol=0, atol=8)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_frames_stored_in_another_order_are_taken_in_the_order_shown(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    write_clip(path, ramp_clip(11, (250, 0, 0)), between=2)
    torch.testing.assert_close(levels(path, 11), torch.linspace(0, 250, 11), rtol=0, atol=8)


def test_frames_without_a_time_are_spread_by_number(tmp_path: Path) -> None:
    path = tmp_path / "stream.mp4"
    write_clip(path, ramp_clip(6, (250, 0, 0)), container_format="m4v")  # frames alone, without a container
    torch.testing.assert_close(levels(path, 3), torch.tensor([50.0, 150, 250]), rtol=0, atol=8)


def write_turned(path: Path, matrix: tuple[float, float, float, float]) -> None:
    """A clip of 48 x 96, quarters as CORNERS, with (a, b, c, d) as its track header's matrix."""
    grey = np.kron(CORNERS, np.ones((24, 48))).astype(np.uint8)
    write_clip(path, np.broadcast_to(grey[None, :, :, None], (3, 48, 96, 3)))
    content = bytearray(path.read_bytes())
    a, b, c, d = (round(part * 2**16) for part in matrix)
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 2**30)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), CORNERS),
        ((0, 1, -1, 0), np.rot90(CORNERS, -1)),  # a telephone held upright: clockwise
        ((-1, 0, 0, -1), np.rot90(CORNERS, 2)),
        ((0, -1, 1, 0), np.rot90(CORNERS)),
        ((-1, 0, 0, 1), np.fliplr(CORNERS)),
        ((1, 0, 0, -1), np.flipud(CORNERS)),
        ((0, 1, 1, 0), CORNERS.T),
        ((0, -1, -1, 0), np.rot90(CORNERS, 2).T),
    ],
)
def test_a_clip_is_turned_and_mirrored_as_it_is_shown(
    tmp_path: Path, matrix: tuple[float, float, float, float], shown: np.ndarray
) -> None:
    for index in range(3):
        write_turned(tmp_path / "only" / f"{index}.mp4", matrix)
    height, width = (12, 24) if matrix[0] else (24, 12)  # all of it, nothing cropped
    image = load_video(tmp_path, size=(2, height, width)).train.images[0].float()
    quarters = image.view(3, 2, 2, height // 2, 2, width // 2)[..., 2:-2, :, 2:-2].mean(dim=(3, 5))
    torch.testing.assert_close(quarters, torch.tensor(shown.copy()).float().expand(3, 2, 2, 2), rtol=0, atol=10)


def test_a_clip_turned_by_less_than_a_quarter_is_named(tmp_path: Path) -> None:
    write_turned(tmp_path / "slanted.mp4", (0.8, 0.6, -0.6, 0.8))
    with pytest.raises(ValueError, match=r"slanted\.mp4 does not decode as a video: it is to be shown turned by \[\["):
        read_clip(tmp_path / "slanted.mp4", (2, 8, 8))


def test_frames_too_large_to_hold_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "large.mp4", ramp_clip(3, (250, 0, 0)))
    read_clip(tmp_path / "large.mp4", (1, 8, 8))
    monkeypatch.setattr(video_file, "MOST_VOXELS", 3 * 300 * 300)
    with pytest.raises(ValueError, match=r"large.mp4 .* frames of 300 x 400 x 3 values; accepted are at most 270000"):
        read_clip(tmp_path / "large.mp4", (1, 300, 300))
    monkeypatch.setattr(video_file, "MOST_VOXELS", 3 * 48 * 64 - 1)
    with pytest.raises(ValueError, match=r"large.mp4 .* frames of 48 x 64 x 3 values; accepted are at most 9215"):
        read_clip(tmp_path / "large.mp4", (1, 8, 8))
