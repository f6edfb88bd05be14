"""MedMNIST files: what is read back is what was written, and a wrong file is named with what is wrong in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrw.data import SPLITS, load, load_medmnist
from verify.unit.data.small import DATA, medmnist_arrays, needs_data


def test_medmnist_reads_what_the_file_holds(tmp_path: Path) -> None:
    arrays = medmnist_arrays()
    np.savez_compressed(tmp_path / "toy3d.npz", **arrays)
    volumes = load_medmnist(tmp_path / "toy3d.npz")
    assert (volumes.name, volumes.classes, volumes.size) == ("toy3d", ("0", "1", "2"), (4, 5, 6))
    for name in SPLITS:
        np.testing.assert_array_equal(volumes.split(name).images[:, 0].numpy(), arrays[f"{name}_images"])
        np.testing.assert_array_equal(volumes.split(name).labels.numpy(), arrays[f"{name}_labels"][:, 0])


@needs_data
@pytest.mark.parametrize(("file", "side"), [("adrenalmnist3d.npz", 28), ("adrenalmnist3d_64.npz", 64)])
def test_medmnist_reads_the_published_file(file: str, side: int) -> None:
    volumes = load(DATA / file, size=(side, side, side))
    assert volumes.counts == {"train": 1188, "val": 98, "test": 298}
    assert (volumes.size, volumes.classes) == ((side, side, side), ("0", "1"))
    assert round(float((volumes.test.labels == 0).double().mean()), 3) == 0.768  # the published majority class


def drop_key(arrays: dict[str, Any]) -> None:
    del arrays["val_labels"]


def pickle_labels(arrays: dict[str, Any]) -> None:
    arrays["test_labels"] = arrays["test_labels"].astype(object)


def flatten_images(arrays: dict[str, Any]) -> None:
    arrays["train_images"] = arrays["train_images"][0]


def float_images(arrays: dict[str, Any]) -> None:
    arrays["val_images"] = arrays["val_images"].astype(np.float32)


def two_labels_each(arrays: dict[str, Any]) -> None:
    arrays["train_labels"] = np.repeat(arrays["train_labels"], 2, axis=1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_key, "val_labels missing, found train_images"),
        (pickle_labels, "allow_pickle=False"),
        (flatten_images, r"train_images must be uint8 \[n, D, H, W\] and not empty, got uint8 \[4, 5, 6\]"),
        (float_images, r"val_images must be uint8 .* got float32"),
        (two_labels_each, r"train_labels must be integers \[5, 1\], got uint8 \[5, 2\]"),
    ],
)
def test_medmnist_names_what_is_wrong_in_a_file(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], message: str
) -> None:
    arrays = medmnist_arrays()
    damage(arrays)
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=f"bad.npz.*{message}"):
        load_medmnist(path)


def test_medmnist_refuses_files_of_other_kinds(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "good.npz", **medmnist_arrays())
    whole = (tmp_path / "good.npz").read_bytes()
    damaged = bytearray(whole)
    damaged[60:90] = bytes(30)
    single = tmp_path / "single.npy"
    np.save(single, np.zeros(3))
    contents = {"text": b"no archive", "empty": b"", "cut": whole[:-100], "damaged": bytes(damaged)}
    for name, content in {**contents, "single": single.read_bytes()}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{name}\.npz is not a MedMNIST 3D \.npz"):
            load_medmnist(path)
    with pytest.raises(FileNotFoundError, match=r"no MedMNIST file at .*absent\.npz"):
        load_medmnist(tmp_path / "absent.npz")
