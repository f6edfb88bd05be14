"""Where voxels lie: one affine gives orientation and spacing, and label maps lie where their images lie."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lrw.data import load_nifti
from lrw.data.nifti_file import read_nifti
from verify.unit.data.small import write_decathlon

PIXDIM, CODES, QUATERNION, SFORM = 80, 252, 256, 280  # bytes of a NIfTI-1 header


def save(path: Path, values: np.ndarray, affine: np.ndarray, *edits: tuple[str, int, tuple[float, ...]]) -> Path:
    """Write `values` [x, y, z]; each edit (format, byte, numbers) goes over the header afterwards."""
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(values, affine).to_filename(path)
    raw = bytearray(path.read_bytes())
    for layout, start, numbers in edits:
        struct.pack_into(layout, raw, start, *numbers)
    path.write_bytes(raw)
    return path


def affine(*diagonal: float, offset: tuple[float, ...] = (0, 0, 0)) -> np.ndarray:
    matrix = np.diag([*diagonal, 1.0])
    matrix[:3, 3] = offset
    return matrix


def test_one_volume_stored_two_ways_is_one_image(tmp_path: Path) -> None:
    # 10 x 10 x 10 mm in two slices, brighter to the right and above; pixdim says 1 mm where the affine says 5.
    values = np.zeros((10, 10, 2), dtype=np.int16)
    values[5:] += 55
    values[..., 1] += 45
    one = ("<3f", PIXDIM, (1.0, 1.0, 1.0))
    ways = {
        "ras": (values, affine(1, 1, 5)),
        "lps": (values[::-1, ::-1], affine(-1, -1, 5, offset=(9, 9, 0))),
        "down": (values[..., ::-1], affine(1, 1, -5, offset=(0, 0, 5))),
    }
    sides = torch.tensor([[0, 0, 140, 140], [29, 29, 169, 169], [86, 86, 226, 226], [115, 115, 255, 255]])
    expected = sides.to(torch.uint8)[:, None].expand(4, 4, 4)
    for name, (stored, matrix) in ways.items():
        for index in range(3):
            save(tmp_path / name / "only" / f"{index}.nii", np.ascontiguousarray(stored), matrix, one)
        image = load_nifti(tmp_path / name, size=(4, 4, 4)).train.images[0, 0]
        assert torch.equal(image, expected), name


def test_spacing_is_that_of_the_best_affine(tmp_path: Path) -> None:
    values, matrix = np.zeros((2, 3, 4), dtype=np.uint8), affine(1, 2, 3)
    other = ("<3f", PIXDIM, (7.0, 8.0, 9.0))
    sform = save(tmp_path / "sform.nii", values, matrix, other)
    qform = save(tmp_path / "qform.nii", values, matrix, other, ("<2h", CODES, (1, 0)))
    neither = save(tmp_path / "neither.nii", values, matrix, other, ("<2h", CODES, (0, 0)))
    negative = save(tmp_path / "negative.nii", values, matrix, ("<3f", PIXDIM, (-7, 8, 9)), ("<2h", CODES, (0, 0)))
    unused = save(tmp_path / "unused.nii", values, matrix, ("<3f", PIXDIM, (0.0, np.nan, 1e6)))
    assert read_nifti(sform).spacing == read_nifti(unused).spacing == (3, 2, 1)
    assert read_nifti(qform).spacing == read_nifti(neither).spacing == read_nifti(negative).spacing == (9, 8, 7)


def test_oblique_axes_turn_to_the_nearest_and_keep_their_spacing(tmp_path: Path) -> None:
    cosine, sine = np.cos(0.3), np.sin(0.3)
    turned = np.array([[0, 2 * cosine, -3 * sine], [0, 2 * sine, 3 * cosine], [-1, 0, 0]])
    matrix = np.eye(4)
    matrix[:3, :3] = turned
    values = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = read_nifti(save(tmp_path / "oblique.nii", values, matrix))
    np.testing.assert_allclose(volume.spacing, (1, 3, 2), rtol=1e-6)
    # Stored axes run down, right, forward: D is the first one backwards, H the third, W the second.
    np.testing.assert_array_equal(volume.stored[0], values[::-1].transpose(0, 2, 1))


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([("<12f", SFORM, (float("nan"),) * 12)], "holds NaN, infinity or more than"),
        ([("<f", SFORM, (float("inf"),))], "holds NaN, infinity or more than"),
        ([("<12f", SFORM, (0.0,) * 12)], "is singular"),
        ([("<12f", SFORM, (1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0))], "is singular"),
        ([("<12f", SFORM, (1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 1, 0))], "is singular"),
        ([("<3f", PIXDIM, (1, 0, 1)), ("<2h", CODES, (0, 0))], "is singular"),
        ([("<3f", PIXDIM, (1, float("nan"), 1)), ("<2h", CODES, (0, 0))], "holds NaN"),
        ([("<3f", PIXDIM, (1, 1, 1e6)), ("<2h", CODES, (0, 0))], r"spacing .*1000000\.0\] differs by more than 1000"),
        ([("<2h", CODES, (1, 0)), ("<3f", QUATERNION, (0.9, 0.9, 0.9))], "w2 should be positive"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(
    tmp_path: Path, edits: list[tuple[str, int, tuple[float, ...]]], message: str
) -> None:
    path = save(tmp_path / "odd.nii", np.zeros((2, 3, 4), dtype=np.uint8), np.eye(4), *edits)
    with pytest.raises(ValueError, match=f"odd.nii is not a readable NIfTI volume: .*{message}"):
        read_nifti(path)


def test_a_volume_that_would_be_resampled_to_gigabytes_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        save(tmp_path / "a" / f"{index}.nii", np.zeros((1, 1, 30000), dtype=np.uint8), affine(1, 1, 900))
    with pytest.raises(
        ValueError, match=r"a/\d.nii: with a voxel spacing of \(900.0, 1.0, 1.0\) it takes \[\d+, 8, 8\]"
    ):
        load_nifti(tmp_path, size=(8, 8, 8))


@pytest.mark.parametrize(
    ("matrix", "apart"),
    [
        (affine(1, 1, 1, offset=(50, 0, 0)), "50 voxels"),
        (affine(1, 1, 1.05), "0.35 voxels"),  # of 8 slices the last lies 7 * 0.05 off
        (affine(1, 1, 1, offset=(0, 0.2, 0)), "0.2 voxels"),
    ],
)
def test_a_label_map_that_lies_elsewhere_is_refused(tmp_path: Path, matrix: np.ndarray, apart: str) -> None:
    write_decathlon(tmp_path)
    save(tmp_path / "labelsTr" / "v1.nii.gz", np.ones((12, 10, 8), dtype=np.uint8), matrix)
    message = (
        rf"labelsTr.v1.nii.gz: must lie where .*imagesTr.v1.nii.gz lies, .* {apart} apart; accepted are at most 0.1"
    )
    with pytest.raises(ValueError, match=message):
        load_nifti(tmp_path, size=(3, 3, 3), cubes_per_class=2)


def test_a_label_map_may_be_stored_another_way_and_rounded(tmp_path: Path) -> None:
    write_decathlon(tmp_path)
    before = load_nifti(tmp_path, size=(3, 3, 3), cubes_per_class=2)
    path = tmp_path / "labelsTr" / "v1.nii.gz"
    labels = read_nifti(path).stored[0].transpose(2, 1, 0)
    save(path, np.ascontiguousarray(labels[::-1]), affine(-1, 1, 1, offset=(11.01, 0, 0)))
    after = load_nifti(tmp_path, size=(3, 3, 3), cubes_per_class=2)
    assert torch.equal(before.train.images, after.train.images)
    assert torch.equal(before.train.labels, after.train.labels)
