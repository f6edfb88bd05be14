"""NIfTI folders: Decathlon cubes and class folders hold the voxels written, and a wrong file is named."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lrw.data import SPLITS, load, load_nifti
from verify.unit.data.small import DATA, identical, needs_data, write_decathlon, write_nifti

DECATHLON = {"0": "background", "1": "bright", "2": "grey"}
NNUNET = {"background": 0, "bright": 1, "grey": 2, "both": [1, 2]}


@pytest.mark.parametrize("labels", [DECATHLON, NNUNET])
def test_decathlon_cubes_are_named_by_their_centre(tmp_path: Path, labels: dict[str, object]) -> None:
    write_decathlon(tmp_path / "Task")
    description = {"labels": labels}
    (tmp_path / "Task" / "dataset.json").write_text(json.dumps(description))
    volumes = load_nifti(tmp_path / "Task", size=(5, 4, 3), cubes_per_class=6, segmented=False)
    assert (volumes.name, volumes.classes) == ("Task", ("background", "bright", "grey"))
    assert (volumes.channels, volumes.size) == (1, (5, 4, 3))
    assert volumes.counts == {"train": 2 * 18, "val": 18, "test": 18}
    for name in SPLITS:
        split = volumes.split(name)
        centre = split.images[:, 0, 2, 2, 1].float()
        levels = torch.tensor([0.0, 255.0, 255.0 * 80 / 180])[split.labels]
        torch.testing.assert_close(centre, levels, rtol=0, atol=3)
        assert len(set(torch.bincount(split.labels).tolist())) == 1


def test_decathlon_cubes_keep_the_labels_of_their_voxels(tmp_path: Path) -> None:
    """Grey levels of the written volumes say which label a voxel has; outside of a volume it is that of nothing."""
    write_decathlon(tmp_path / "Task")
    named = load_nifti(tmp_path / "Task", size=(5, 4, 3), cubes_per_class=6, segmented=False)
    volumes = load_nifti(tmp_path / "Task", size=(5, 4, 3), cubes_per_class=6)
    assert volumes.segmented
    assert volumes.classes == named.classes
    for name in SPLITS:
        split = volumes.split(name)
        assert torch.equal(split.images, named.split(name).images)
        assert torch.equal(split.labels[:, 2, 2, 1].long(), named.split(name).labels)
        levels = torch.tensor([0.0, 255.0, 255.0 * 80 / 180])[split.labels.long()]
        torch.testing.assert_close(split.images[:, 0].float(), levels, rtol=0, atol=3)
    images, labels = next(volumes.batches("train", 2))
    assert (images.dtype, labels.dtype, labels.shape) == (torch.float32, torch.int64, (2, 5, 4, 3))


def test_decathlon_background_lies_near_the_structure(tmp_path: Path) -> None:
    for index in range(3):
        labels = np.zeros((20, 20, 20), dtype=np.uint8)
        labels[0:2, 0:2, 0:2] = 4
        grey = np.add.outer(np.add.outer(np.arange(20) * 1.0, np.arange(20)), np.arange(20))
        write_nifti(tmp_path / "imagesTr" / f"{index}.nii", grey)
        write_nifti(tmp_path / "labelsTr" / f"{index}.nii", labels)
    volumes = load_nifti(tmp_path, size=(8, 8, 8), cubes_per_class=20, segmented=False)
    assert volumes.classes == ("background", "label 4")
    # Reach is a quarter of the cube: grey, here x + y + z, stays below 3 * (1 + 2) of 57 at the centres.
    centre = volumes.train.images[:, 0, 4, 4, 4].double() / 255 * 57
    assert float(centre[volumes.train.labels == 0].max()) < 11
    assert len(set(centre[volumes.train.labels == 1].tolist())) <= 8  # 20 draws of 8 voxels


def test_cubes_at_the_rim_are_filled_with_black(tmp_path: Path) -> None:
    for index in range(3):
        write_nifti(tmp_path / "imagesTr" / f"{index}.nii", 5.0 + np.tile(np.eye(3)[:, :, None], 3))
        write_nifti(tmp_path / "labelsTr" / f"{index}.nii", np.pad(np.ones((1, 1, 1), np.uint8), 1))
    volumes = load_nifti(tmp_path, size=(9, 9, 9), cubes_per_class=1, segmented=False)
    inside = volumes.train.images[volumes.train.labels == 1][0, 0]
    expected = torch.zeros(9, 9, 9, dtype=torch.uint8)
    expected[3:6, 3:6, 3:6] = 255 * torch.eye(3, dtype=torch.uint8)  # the same diagonal in every slice
    assert torch.equal(inside, expected)


@needs_data
def test_decathlon_reads_the_hippocampus() -> None:
    first, again = (load(DATA / "hippocampus_nifti", seed=3, segmented=False) for _ in range(2))
    assert first.classes == ("background", "label 1", "label 2")
    assert first.counts == {"train": 8 * 24, "val": 2 * 24, "test": 2 * 24}
    assert (first.channels, first.size) == (1, (24, 24, 24))
    assert identical(first, again)
    assert not identical(first, load(DATA / "hippocampus_nifti", seed=4, segmented=False))
    voxels = load(DATA / "hippocampus_nifti", seed=3)
    assert (voxels.segmented, voxels.size, voxels.counts) == (True, (32, 32, 32), first.counts)
    shares = torch.bincount(voxels.train.labels.flatten().long()).double() / voxels.train.labels.numel()
    assert 0.5 < float(shares[0]) < 0.99
    assert float(shares[1:].min()) > 0.005


def test_class_folders_are_turned_resampled_and_split_per_class(tmp_path: Path) -> None:
    right = np.zeros((8, 8, 8), dtype=np.float32)
    right[4:] = 1000.0
    for index in range(4):
        # Both kinds of file tell the same: bright on the right. One stores it mirrored.
        write_nifti(tmp_path / "right" / f"{index}.nii.gz", right, flip=index % 2 == 0)
        write_nifti(tmp_path / "top" / f"{index}.nii", right.transpose(2, 1, 0), spacing=(1.0, 1.0, 1.0))
    volumes = load_nifti(tmp_path, size=(4, 4, 4))
    assert volumes.classes == ("right", "top")
    assert volumes.counts == {"train": 4, "val": 2, "test": 2}
    ramp = torch.tensor([0, 0, 255, 255], dtype=torch.uint8)
    for name in SPLITS:
        split = volumes.split(name)
        for image, label in zip(split.images[:, 0], split.labels.tolist(), strict=True):
            expected = ramp.view(1, 1, 4) if label == 0 else ramp.view(4, 1, 1)
            assert torch.equal(image, expected.expand(4, 4, 4))


def test_class_folders_keep_the_proportions_of_the_voxel_spacing(tmp_path: Path) -> None:
    # 6 slices of 2 mm and 24 columns of 1 mm: 12 x 12 x 24 mm. To cover 6^3 the columns are averaged by two
    # and the outer half of them is cropped: what stays is the middle 12 columns.
    values = np.zeros((24, 12, 6), dtype=np.float32)
    values[6:18] = 100.0
    for index in range(3):
        write_nifti(tmp_path / "only" / f"{index}.nii", values, spacing=(1.0, 1.0, 2.0))
    volumes = load_nifti(tmp_path, size=(6, 6, 6))
    assert torch.equal(volumes.train.images, torch.full((1, 1, 6, 6, 6), 255, dtype=torch.uint8))


def test_nifti_channels_and_odd_values_become_grey(tmp_path: Path) -> None:
    values = np.zeros((4, 4, 4, 3), dtype=np.float32)
    values[..., 0] = np.linspace(-5, 5, 64).reshape(4, 4, 4)
    values[0, 0, 0, 0], values[3, 3, 3, 0] = np.nan, np.inf
    values[1, 2, 3, 1] = 7.0  # sparse: both percentiles are 0
    for index in range(3):
        write_nifti(tmp_path / "a" / f"{index}.nii", values)
    images = load_nifti(tmp_path, size=(4, 4, 4)).train.images[0]
    assert images.shape == (3, 4, 4, 4)
    assert (int(images[0, 0, 0, 0]), int(images[0, 3, 3, 3])) == (0, 255)
    assert (images[1].nonzero().tolist(), int(images[1].max())) == ([[3, 2, 1]], 255)
    assert torch.count_nonzero(images[2]) == 0


def break_file(folder: Path) -> None:
    (folder / "imagesTr" / "v1.nii.gz").write_bytes(b"no volume")


def cut_file(folder: Path) -> None:
    path = folder / "imagesTr" / "v1.nii.gz"
    path.write_bytes(path.read_bytes()[:200])


def remove_labels(folder: Path) -> None:
    (folder / "labelsTr" / "v1.nii.gz").unlink()


def shrink_labels(folder: Path) -> None:
    write_nifti(folder / "labelsTr" / "v1.nii.gz", np.ones((12, 10, 7), dtype=np.uint8))


def soften_labels(folder: Path) -> None:
    write_nifti(folder / "labelsTr" / "v1.nii.gz", np.full((12, 10, 8), 0.5, dtype=np.float32))


def clear_labels(folder: Path) -> None:
    write_nifti(folder / "labelsTr" / "v1.nii.gz", np.zeros((12, 10, 8), dtype=np.uint8))


def make_flat(folder: Path) -> None:
    write_nifti(folder / "imagesTr" / "v1.nii.gz", np.ones((12, 10), dtype=np.uint8))


def lose_values(folder: Path) -> None:
    write_nifti(folder / "imagesTr" / "v1.nii.gz", np.full((12, 10, 8), np.nan, dtype=np.float32))


def two_channels(folder: Path) -> None:
    write_nifti(folder / "imagesTr" / "v1.nii.gz", np.ones((12, 10, 8, 2), dtype=np.float32))


def spoil_description(folder: Path) -> None:
    (folder / "dataset.json").write_text("[1, 2]")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (break_file, ValueError, "v1.nii.gz is not a readable NIfTI volume"),
        (cut_file, ValueError, "v1.nii.gz is not a readable NIfTI volume"),
        (remove_labels, FileNotFoundError, "no label map at .*v1.nii.gz"),
        (shrink_labels, ValueError, r"v1.nii.gz: shape must be \[8, 10, 12\] .* got \[1, 7, 10, 12\]"),
        (soften_labels, ValueError, "v1.nii.gz: a label map must hold whole numbers from 0"),
        (clear_labels, ValueError, "v1.nii.gz: its label map holds no labelled voxel"),
        (make_flat, ValueError, r"v1.nii.gz is not a readable NIfTI volume: it must have 3 or 4 axes"),
        (lose_values, ValueError, "v1.nii.gz: channel 0 holds no finite value"),
        (two_channels, ValueError, r"\[C, D, H, W\] must be|must have the training split's"),
        (spoil_description, ValueError, "dataset.json is not a Decathlon description"),
    ],
)
def test_decathlon_names_the_file_that_is_wrong(
    tmp_path: Path, damage: Callable[[Path], None], error: type[Exception], message: str
) -> None:
    write_decathlon(tmp_path)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        load_nifti(tmp_path, size=(3, 3, 3), cubes_per_class=2)


def test_nifti_names_a_wrong_argument_or_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at .*absent"):
        load_nifti(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"holds no class folder with files ending in \.nii, \.nii\.gz"):
        load_nifti(tmp_path)
    with pytest.raises(ValueError, match="cubes_per_class must be an int of at least 1, got 0"):
        load_nifti(tmp_path, cubes_per_class=0)
    with pytest.raises(ValueError, match=r"size: .* accepted are three whole numbers"):
        load_nifti(tmp_path, size=(3, 3))
    write_decathlon(tmp_path / "two", count=2)
    with pytest.raises(ValueError, match=r"volumes in .*imagesTr: at least 3 are needed .* found 2"):
        load_nifti(tmp_path / "two")
    write_nifti(tmp_path / "classes" / "a" / "0.nii", np.ones((2, 2, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"class 'a' in .*: at least 3 are needed .* found 1"):
        load_nifti(tmp_path / "classes")
