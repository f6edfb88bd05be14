"""Arrays: folds become splits, numbers stay as they are, and a wrong file is named with what is wrong in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrw.data import SPLITS, Split, Volumes, load, load_arrays
from verify.unit.data.small import DATA, needs_data

PACKED = DATA / "hippocampus_260_uint8_48x64x48.npz"


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 4, 6, 5)).astype(np.uint8)
    return {"images": images, "labels": (images > 200).astype(np.uint8), "fold": np.arange(8) % 4}


def test_folds_become_splits(tmp_path: Path) -> None:
    written = arrays()
    np.savez_compressed(tmp_path / "toy.npz", **written)
    volumes = load_arrays(tmp_path / "toy.npz", fold=3)
    assert volumes.segmented
    assert (volumes.classes, volumes.size, volumes.counts) == (("0", "1"), (4, 6, 5), {"train": 4, "val": 2, "test": 2})
    for name, folds in zip(SPLITS, ([1, 2], [0], [3]), strict=True):
        there = np.isin(written["fold"], folds)
        np.testing.assert_array_equal(volumes.split(name).images[:, 0].numpy(), written["images"][there])
        np.testing.assert_array_equal(volumes.split(name).labels.numpy(), written["labels"][there])
    images, labels = next(load(tmp_path / "toy.npz").batches("train", 2, seed=0))
    assert (images.shape, labels.shape, labels.dtype) == ((2, 1, 4, 6, 5), (2, 4, 6, 5), torch.int64)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("channels", [None, 3])
def test_numbers_of_a_network_stay_as_they_are(packed: bool, channels: int | None, tmp_path: Path) -> None:
    """Of a class each, without folds: dealt by the seed, as they were written."""
    rng = np.random.default_rng(0)
    images = rng.normal(7, 9, (20, *([channels] if channels else []), 3, 4, 5))
    labels = np.arange(20)[:, None] % 2
    path = tmp_path / "mine.npz" if packed else tmp_path / "mine"
    if packed:
        np.savez(path, images=images, labels=labels)
    else:
        path.mkdir()
        np.save(path / "images.npy", images)
        np.save(path / "labels.npy", labels)
    volumes = load(path, seed=1)
    assert not volumes.segmented
    assert (volumes.name, volumes.classes, volumes.channels) == ("mine", ("0", "1"), channels or 1)
    assert volumes.counts == {"train": 14, "val": 3, "test": 3}
    found = torch.cat([torch.cat([x for x, _ in volumes.batches(name, 7)]) for name in SPLITS])
    expected = torch.from_numpy(images).float().reshape(found.shape)
    order = found.flatten(1)[:, 0].argsort()
    torch.testing.assert_close(found[order], expected[expected.flatten(1)[:, 0].argsort()], rtol=0, atol=0)
    assert not torch.equal(load(path, seed=2).train.images, volumes.train.images)
    with pytest.raises(ValueError, match=r"fold: 1; .*mine.* has no array 'fold'"):
        load_arrays(path, fold=1)


def test_each_value_of_a_label_is_a_class(tmp_path: Path) -> None:
    """A mask of 0 and 255 has two."""
    written = arrays()
    np.savez(tmp_path / "mask.npz", **{**written, "labels": 255 * written["labels"]})
    volumes = load(tmp_path / "mask.npz")
    assert volumes.classes == ("0", "255")
    assert torch.equal(volumes.test.labels, torch.from_numpy(written["labels"][written["fold"] == 0]).short())


def test_folders_take_folds_too(tmp_path: Path) -> None:
    for name, array in arrays().items():
        np.save(tmp_path / f"{name}.npy", array)
    assert load(tmp_path).counts == {"train": 4, "val": 2, "test": 2}
    (tmp_path / "labels.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"labels\.npy is not an .npy array"):
        load(tmp_path)


@needs_data
def test_the_packed_hippocampus_is_read() -> None:
    volumes = load(PACKED)
    assert volumes.counts == {"train": 156, "val": 52, "test": 52}
    assert (volumes.size, volumes.classes) == ((48, 64, 48), ("0", "1", "2"))
    shares = torch.bincount(volumes.train.labels.flatten().long()) / volumes.train.labels.numel()
    assert 0.005 < float(shares[1]) < 0.05
    assert 0.005 < float(shares[2]) < 0.05


def endless_images(written: dict[str, Any]) -> None:
    written["images"] = written["images"].astype(np.float32)
    written["images"][5, 1] = np.inf


def flat_images(written: dict[str, Any]) -> None:
    written["images"] = written["images"][:, 0]


def one_class(written: dict[str, Any]) -> None:
    written["labels"] *= 0


def few_samples(written: dict[str, Any]) -> None:
    del written["fold"]
    written.update({name: written[name][:2] for name in ("images", "labels")})


def fewer_labels(written: dict[str, Any]) -> None:
    written["labels"] = written["labels"][:-1]


def float_folds(written: dict[str, Any]) -> None:
    written["fold"] = written["fold"] / 2


def two_folds(written: dict[str, Any]) -> None:
    written["fold"] %= 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (endless_images, r"images\[5\] holds numbers that are not finite"),
        (flat_images, r"images must be numbers \[n, D, H, W\] or .*, got uint8 \[8, 6, 5\]"),
        (one_class, "labels are all 0; accepted are two classes or more"),
        (few_samples, "samples in .*toy.npz: at least 3 are needed"),
        (fewer_labels, "labels must be integers"),
        (float_folds, "fold must be integers"),
        (two_folds, r"fold: 0; .* has folds \[0, 1\]"),
    ],
)
def test_a_wrong_file_is_named(spoil: Callable[[dict[str, Any]], None], words: str, tmp_path: Path) -> None:
    written = arrays()
    spoil(written)
    np.savez(tmp_path / "toy.npz", **written)
    with pytest.raises(ValueError, match=words):
        load_arrays(tmp_path / "toy.npz")


def test_missing_files_and_broken_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no arrays at"):
        load_arrays(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match=r"other.npz holds \['x'\]; accepted are images and labels, or MedMNIST's"):
        load(tmp_path / "other.npz")
    (tmp_path / "toy.npz").write_bytes(b"PK nothing")
    for read in (load_arrays, load):
        with pytest.raises(ValueError, match=r"toy\.npz is not"):
            read(tmp_path / "toy.npz")


def test_splits_agree_on_the_kind_of_label() -> None:
    images = torch.zeros(2, 1, 3, 3, 3, dtype=torch.uint8)
    voxels, whole = Split(images, torch.zeros(2, 3, 3, 3, dtype=torch.int64)), Split(images, torch.zeros(2).long())
    assert Volumes("toy", ("a",), voxels, voxels, voxels).segmented
    assert not Volumes("toy", ("a",), whole, whole, whole).segmented
    with pytest.raises(ValueError, match="one a voxel"):
        Volumes("toy", ("a",), voxels, whole, voxels)
