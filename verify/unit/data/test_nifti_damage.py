"""NIfTI files: damage and wrong sizes are refused by name, what a float32 would lose is kept or refused."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lrw.data import load_nifti
from lrw.data.limits import MOST_CLASSES, MOST_VOXELS
from lrw.data.nifti_file import as_grey, as_labels, read_nifti
from verify.damage import judged
from verify.unit.data.small import write_decathlon, write_nifti

SHAPE, TYPE, OFFSET, SLOPE, MAGIC = 42, 70, 108, 112, 344  # bytes of a NIfTI-1 header
NOISE = np.random.default_rng(0).integers(0, 1000, (6, 7, 8)).astype(np.int16)


def plain(path: Path, values: np.ndarray = NOISE) -> bytearray:
    """The bytes of a volume that is not packed."""
    write_nifti(path.with_name("plain.nii"), values)
    return bytearray(path.with_name("plain.nii").read_bytes())


def over(raw: bytearray, layout: str, start: int, *numbers: float) -> bytearray:
    struct.pack_into(layout, raw, start, *numbers)
    return raw


@pytest.mark.parametrize("place", [0.25, 0.5, 0.99])
def test_a_byte_flipped_in_a_packed_volume_is_noticed(tmp_path: Path, place: float) -> None:
    # Not compressed, so that it still unpacks: the checksum alone tells.
    packed = bytearray(gzip.compress(bytes(plain(tmp_path / "v")), compresslevel=0))
    packed[int(place * (len(packed) - 8))] ^= 0x5A
    (tmp_path / "noise.nii.gz").write_bytes(packed)
    with pytest.raises(ValueError, match=r"noise.nii.gz is not a readable NIfTI volume: CRC check failed"):
        read_nifti(tmp_path / "noise.nii.gz")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda raw: over(raw, "<3h", SHAPE, 1024, 1024, 1000),
            rf"\(1024, 1024, 1000\); accepted are 1 to {MOST_VOXELS}",
        ),
        (lambda raw: over(raw, "<3h", SHAPE, 512, 512, 1000), "claims 524288352 bytes, it holds"),
        (lambda raw: over(raw, "<3h", SHAPE, 6, 7, -8), r"shape is \(6, 7, -8\)"),
        (lambda raw: over(raw, "<3h", SHAPE, 6, 0, 8), r"shape is \(6, 0, 8\)"),
        (lambda raw: over(raw, "<hh", TYPE, 1, 1), "data code 1 not supported"),
        (
            lambda raw: over(raw, "<hh", TYPE, 32, 64),
            "values of type complex64; accepted are integers and real numbers",
        ),
        (lambda raw: over(raw, "<hh", TYPE, 128, 24), "accepted are integers and real numbers"),
        (lambda raw: over(raw, "<f", OFFSET, 0.0), "start at byte 0, inside its header"),
        (lambda raw: over(raw, "<f", OFFSET, float("nan")), "NaN"),
        (lambda raw: over(raw, "<4s", MAGIC, b"ni1"), "its voxels lie in another file"),
        (lambda raw: over(raw, "<2f", SLOPE, 2.0, float("nan")), "invalid intercept nan"),
        (lambda raw: raw[:200], "which is no NIfTI header"),
        (lambda raw: raw[:-1], "claims 1024 bytes, it holds 1023|ends 1 bytes before"),
        (lambda raw: raw + b"x", "claims 1024 bytes, it holds 1025|more bytes than its header claims"),
        (lambda raw: b"", "no NIfTI header"),
    ],
)
@pytest.mark.parametrize("name", ["odd.nii", "odd.nii.gz"])
def test_a_header_that_cannot_be_true_is_refused_before_anything_is_allocated(
    tmp_path: Path, name: str, edit: Callable[[bytearray], bytes], message: str
) -> None:
    raw = bytes(edit(plain(tmp_path / name)))
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    with judged(name, most_memory=2**20):
        read_nifti(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is not a readable NIfTI volume.*({message})"):
        read_nifti(tmp_path / name)


def test_a_gzip_file_of_zeros_unpacks_to_no_more_than_it_claims(tmp_path: Path) -> None:
    raw = bytes(plain(tmp_path / "v")) + bytes(2**26)
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(raw, compresslevel=1))
    with judged("bomb.nii.gz", most_memory=2**20):
        read_nifti(tmp_path / "bomb.nii.gz")
    with pytest.raises(ValueError, match=r"bomb.nii.gz .* more bytes than its header claims"):
        read_nifti(tmp_path / "bomb.nii.gz")


@pytest.mark.parametrize(
    "values",
    [
        100_000_000 + NOISE.astype(np.int32) % 50,
        1e200 * NOISE.astype(np.float64),
        (NOISE % 256 - 128).astype(np.int8),
        NOISE.astype(np.uint16) + 40_000,
    ],
    ids=["large integers", "large doubles", "signed bytes", "unsigned words"],
)
def test_grey_is_computed_from_the_stored_values(tmp_path: Path, values: np.ndarray) -> None:
    write_nifti(tmp_path / "v.nii", values)
    path = tmp_path / "v.nii"
    exact = values.astype(np.float64)
    low, high = np.percentile(exact, (0.5, 99.5))
    expected = np.rint((np.clip(exact, low, high) - low) / (high - low) * 255)
    np.testing.assert_array_equal(as_grey(read_nifti(path), path)[0].numpy(), expected.transpose(2, 1, 0))
    path.write_bytes(over(bytearray(path.read_bytes()), "<2f", SLOPE, -2.0, 5.0))
    inverted = as_grey(read_nifti(path), path)[0].numpy()
    np.testing.assert_allclose(inverted, 255 - expected.transpose(2, 1, 0), atol=1)


def test_values_out_of_range_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "v.nii", 1e305 * NOISE.astype(np.float64))
    with pytest.raises(
        ValueError, match=r"v.nii: channel 0 goes from 2e\+305 to 9\.\d+e\+307; accepted are at most 1e\+300"
    ):
        as_grey(read_nifti(tmp_path / "v.nii"), tmp_path / "v.nii")


def label_maps(folder: Path, values: np.ndarray, slope: float = 1.0) -> None:
    write_decathlon(folder)
    for index in range(4):
        path = folder / "labelsTr" / f"v{index}.nii.gz"
        write_nifti(path, values)
        if slope != 1:
            path.write_bytes(
                gzip.compress(over(bytearray(gzip.decompress(path.read_bytes())), "<2f", SLOPE, slope, 1.0))
            )


@pytest.mark.parametrize(
    ("dtype", "slope", "labels"),
    [
        (np.int32, 1, (2**24, 2**24 + 1)),
        (np.uint32, 1, (7, 2**32 - 1)),
        (np.float32, 1, (1, 2**24 - 1)),
        (np.float64, 1, (2**40, 2**40 + 1)),
        (np.int32, 2, (2**25 + 1, 2**25 + 3)),
    ],
)
def test_labels_keep_their_integers(
    tmp_path: Path, dtype: type[np.generic], slope: int, labels: tuple[int, int]
) -> None:
    values = np.full((12, 10, 8), labels[0], dtype=np.int64)
    values[6:] = labels[1]
    label_maps(tmp_path, ((values - (slope != 1)) // slope).astype(dtype), slope)
    volumes = load_nifti(tmp_path, size=(3, 3, 3), cubes_per_class=2, segmented=False)
    assert volumes.classes == tuple(f"label {label}" for label in labels)
    assert torch.bincount(volumes.train.labels).tolist() == [4, 4]


@pytest.mark.parametrize(
    ("values", "slope", "message"),
    [
        (np.array([0, 2**24 + 2], dtype=np.float32), 1, "of float32 below 16777216; got 0.0 to 16777218.0"),
        (np.array([0, 2**53], dtype=np.float64), 1, "of float64 below 9007199254740992"),
        (np.array([0, -1], dtype=np.int16), 1, "got -1 to 0"),
        (np.array([0, 1], dtype=np.int16), 0.5, "got others"),
        (np.array([0, np.nan], dtype=np.float32), 1, "got others"),
        (np.array([0, np.inf], dtype=np.float32), 1, "got 0.0 to inf"),
        (np.arange(MOST_CLASSES + 1), 1, rf"at most {MOST_CLASSES} different labels, got {MOST_CLASSES + 1}"),
    ],
)
def test_labels_that_cannot_be_told_apart_are_refused(
    tmp_path: Path, values: np.ndarray, slope: float, message: str
) -> None:
    path = tmp_path / "v.nii"
    raw = plain(path, values.astype(np.int32 if values.dtype == np.int64 else values.dtype).reshape(-1, 1, 1))
    path.write_bytes(over(raw, "<2f", SLOPE, slope, 0.0))
    with pytest.raises(ValueError, match=f"v.nii: a label map must hold .*{message}"):
        as_labels(read_nifti(path), path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**6, "recursion"),
        ('{"labels": ' + "9" * 10**5 + "}", "Exceeds the limit"),
        ('{"labels": null}', "NoneType"),
        ('{"labels": {"1": null}}', "'1': None in labels; accepted are a number and its printable name"),
        ('{"labels": {"1": ["a", "b"]}}', r"'1': \['a', 'b'\] in labels"),
        ('{"labels": {"1": "\\ud800"}}', "'1': .* in labels"),
        ('{"labels": {"1": "\\u001b[2J"}}', "'1': .* in labels"),
        (" " * 2**20 + "{}", "it has 1048578 bytes; accepted are at most 1048576"),
        (b"\xff\xfe", "invalid start byte"),
    ],
)
def test_a_description_that_names_no_labels_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    write_decathlon(tmp_path, 3)
    (tmp_path / "dataset.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"dataset.json is not a Decathlon description with a table of.*{message}"):
        load_nifti(tmp_path, size=(2, 2, 2), cubes_per_class=1)
