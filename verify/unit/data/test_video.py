"""Video folders: frames are taken evenly and cropped around the centre, and a wrong clip is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrw.data import SPLITS, load_video
from verify.unit.data.small import identical, ramp_clip, write_clip, write_clips


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_video_frames_are_taken_evenly_over_the_clip(tmp_path: Path, suffix: str) -> None:
    write_clips(tmp_path, suffix)
    volumes = load_video(tmp_path, size=(4, 16, 24))
    assert volumes.classes == ("blue", "red")
    assert (volumes.channels, volumes.size) == (3, (4, 16, 24))
    assert volumes.counts == {"train": 2, "val": 2, "test": 2}
    # The middles of four equal parts of 20 frames: 2, 7, 12, 17.
    brightness = torch.tensor([2.0, 7.0, 12.0, 17.0]) / 19 * 250
    for name in SPLITS:
        split = volumes.split(name)
        for image, label in zip(split.images.float(), split.labels.tolist(), strict=True):
            channel = 2 if label == 0 else 0
            torch.testing.assert_close(image[channel].mean(dim=(1, 2)), brightness, rtol=0, atol=8)
            assert float(image[1].max()) < 16  # green stays dark in both


def test_video_is_cropped_around_the_centre(tmp_path: Path) -> None:
    frames = np.zeros((6, 48, 96, 3), dtype=np.uint8)
    frames[:, :, 24:72] = 240  # the middle 48 of 96 columns: all a square crop may show
    for index in range(3):
        write_clip(tmp_path / "bar" / f"{index}.mp4", frames)
    images = load_video(tmp_path, size=(2, 24, 24)).train.images.float()
    assert float(images[..., 2:-2].min()) > 210
    tall = load_video(tmp_path, size=(2, 12, 24)).train.images.float()
    assert tall.shape == (1, 3, 2, 12, 24)
    assert float(tall[..., :4].max()) < 40


def test_a_short_clip_repeats_its_frames(tmp_path: Path) -> None:
    for index in range(3):
        write_clip(tmp_path / "short" / f"{index}.avi", ramp_clip(2, (0, 250, 0)))
    images = load_video(tmp_path, size=(6, 8, 8)).train.images[0]
    for frame in (1, 2):
        assert torch.equal(images[:, frame], images[:, 0])
        assert torch.equal(images[:, frame + 3], images[:, 5])
    assert float(images[1, 5].float().mean() - images[1, 0].float().mean()) > 150


def test_video_splits_follow_from_the_seed(tmp_path: Path) -> None:
    for index in range(8):
        write_clip(tmp_path / "a" / f"{index}.mp4", ramp_clip(4, (30 * index, 0, 0)))
    first, again = (load_video(tmp_path, seed=0, size=(2, 8, 8)) for _ in range(2))
    assert identical(first, again)
    others = [load_video(tmp_path, seed=seed, size=(2, 8, 8)) for seed in (1, 2, 3)]
    assert not all(identical(first, other) for other in others)


def test_a_clip_that_does_not_decode_is_named(tmp_path: Path) -> None:
    write_clips(tmp_path)
    (tmp_path / "red" / "1.mp4").write_bytes(b"no clip at all")
    with pytest.raises(ValueError, match=r"red.1\.mp4 does not decode as a video"):
        load_video(tmp_path, size=(2, 8, 8))
    (tmp_path / "red" / "1.mp4").write_bytes((tmp_path / "red" / "0.mp4").read_bytes()[:-700])
    with pytest.raises(ValueError, match=r"red.1\.mp4 does not decode as a video"):
        load_video(tmp_path, size=(2, 8, 8))


def test_a_file_of_sound_alone_is_named(tmp_path: Path) -> None:
    import av

    write_clips(tmp_path)
    with av.open(str(tmp_path / "blue" / "2.mkv"), mode="w") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), dtype=np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"blue.2\.mkv does not decode as a video: it holds no video stream"):
        load_video(tmp_path, size=(2, 8, 8))


def test_video_names_a_wrong_argument_or_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at .*absent"):
        load_video(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no class folder with files ending in \.mp4, \.avi"):
        load_video(tmp_path)
    with pytest.raises(ValueError, match=r"size: .* accepted are three whole numbers"):
        load_video(tmp_path, size=(0, 8, 8))
    write_clips(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"class 'blue' in .*: at least 3 are needed .* found 2"):
        load_video(tmp_path)
