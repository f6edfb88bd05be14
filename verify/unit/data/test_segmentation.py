"""Segmented volumes: folds become splits, and a wrong file is named with what is wrong in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrw import cli
from lrw.data import SPLITS, Split, Volumes, load, load_segmentation
from verify.unit.data.small import DATA, needs_data

PACKED = DATA / "hippocampus_260_uint8_48x64x48.npz"


def arrays() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (8, 4, 6, 5)).astype(np.uint8)
    return {"images": images, "labels": (images > 200).astype(np.uint8), "fold": np.arange(8) % 4}


def test_folds_become_splits(tmp_path: Path) -> None:
    written = arrays()
    np.savez_compressed(tmp_path / "toy.npz", **written)
    volumes = load_segmentation(tmp_path / "toy.npz", fold=3)
    assert volumes.segmented
    assert (volumes.classes, volumes.size, volumes.counts) == (("0", "1"), (4, 6, 5), {"train": 4, "val": 2, "test": 2})
    for name, folds in zip(SPLITS, ([1, 2], [0], [3]), strict=True):
        there = np.isin(written["fold"], folds)
        np.testing.assert_array_equal(volumes.split(name).images[:, 0].numpy(), written["images"][there])
        np.testing.assert_array_equal(volumes.split(name).labels.numpy(), written["labels"][there])
    images, labels = next(load(tmp_path / "toy.npz").batches("train", 2, seed=0))
    assert (images.shape, labels.shape, labels.dtype) == ((2, 1, 4, 6, 5), (2, 4, 6, 5), torch.int64)


@needs_data
def test_the_packed_hippocampus_is_read() -> None:
    volumes = load(PACKED)
    assert volumes.counts == {"train": 156, "val": 52, "test": 52}
    assert (volumes.size, volumes.classes) == ((48, 64, 48), ("0", "1", "2"))
    shares = torch.bincount(volumes.train.labels.flatten()) / volumes.train.labels.numel()
    assert 0.005 < float(shares[1]) < 0.05
    assert 0.005 < float(shares[2]) < 0.05


def drop_fold(written: dict[str, Any]) -> None:
    del written["fold"]


def float_images(written: dict[str, Any]) -> None:
    written["images"] = written["images"].astype(np.float32)


def fewer_labels(written: dict[str, Any]) -> None:
    written["labels"] = written["labels"][:-1]


def float_folds(written: dict[str, Any]) -> None:
    written["fold"] = written["fold"] / 2


def two_folds(written: dict[str, Any]) -> None:
    written["fold"] %= 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (drop_fold, "fold missing"),
        (float_images, "images must be uint8"),
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
        load_segmentation(tmp_path / "toy.npz")


def test_missing_files_and_broken_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no segmentation file"):
        load_segmentation(tmp_path / "none.npz")
    (tmp_path / "toy.npz").write_bytes(b"PK nothing")
    for read in (load_segmentation, load):
        with pytest.raises(ValueError, match=r"toy\.npz is not"):
            read(tmp_path / "toy.npz")


def test_splits_agree_on_the_kind_of_label() -> None:
    images = torch.zeros(2, 1, 3, 3, 3, dtype=torch.uint8)
    voxels, whole = Split(images, torch.zeros(2, 3, 3, 3, dtype=torch.int64)), Split(images, torch.zeros(2).long())
    assert Volumes("toy", ("a",), voxels, voxels, voxels).segmented
    assert not Volumes("toy", ("a",), whole, whole, whole).segmented
    with pytest.raises(ValueError, match="one a voxel"):
        Volumes("toy", ("a",), voxels, whole, voxels)


def test_the_job_says_that_it_classifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "toy.npz", **arrays())
    assert cli.main(["compress", "--data", str(tmp_path / "toy.npz"), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "a label for each voxel" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
