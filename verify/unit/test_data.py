"""Data loaders: what they read back is what was written, splits share nothing, wrong input is named."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw.data import (
    SPLITS,
    Split,
    Volumes,
    load,
    load_medmnist,
    load_nifti,
    load_video,
    moving_digits,
)
from lrw.data.split import three_ways

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real volumes of ../shared/data are not here")


def make_split(count: int, size: tuple[int, ...] = (1, 2, 3, 4), labels: list[int] | None = None) -> Split:
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, *size), generator=generator, dtype=torch.uint8)
    return Split(images, torch.tensor(labels or [index % 2 for index in range(count)]))


def make_volumes(count: int = 9, **splits: Any) -> Volumes:
    parts: dict[str, Split] = {
        "train": make_split(count),
        "val": make_split(2),
        "test": make_split(3),
        **splits,
    }
    return Volumes("toy", ("a", "b"), **parts)


def identical(first: Volumes, second: Volumes) -> bool:
    pairs = [(first.split(name), second.split(name)) for name in SPLITS]
    return first.classes == second.classes and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in pairs
    )


# Volumes


def test_volumes_tell_their_size_and_counts() -> None:
    volumes = make_volumes()
    assert (volumes.channels, volumes.size) == (1, (2, 3, 4))
    assert volumes.counts == {"train": 9, "val": 2, "test": 3}
    assert (len(volumes), len(volumes.train)) == (14, 9)


def test_mean_and_std_are_those_of_the_training_images_per_channel() -> None:
    split = make_split(20, (3, 2, 3, 4))
    volumes = make_volumes(train=split, val=make_split(2, (3, 2, 3, 4)), test=make_split(2, (3, 2, 3, 4)))
    values = split.images.double().transpose(0, 1).flatten(1)
    mean, std = volumes.mean_and_std
    torch.testing.assert_close(mean.double(), values.mean(dim=1), rtol=1e-6, atol=0)
    torch.testing.assert_close(std.double(), values.std(dim=1, correction=0), rtol=1e-6, atol=0)


def test_a_constant_channel_normalises_to_zero() -> None:
    flat = Split(torch.full((4, 1, 2, 3, 4), 7, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
    images, _ = next(make_volumes(train=flat).batches("train", 4))
    assert torch.count_nonzero(images) == 0


def test_batches_in_order_give_every_sample_once_normalised() -> None:
    volumes = make_volumes()
    batches = list(volumes.batches("train", 4))
    assert [len(labels) for _, labels in batches] == [4, 4, 1]
    images = torch.cat([part for part, _ in batches])
    assert images.dtype == torch.float32
    assert torch.equal(torch.cat([labels for _, labels in batches]), volumes.train.labels)
    mean, std = volumes.mean_and_std
    restored = (images * std + mean).round().to(torch.uint8)
    assert torch.equal(restored, volumes.train.images)
    assert abs(float(images.mean())) < 1e-5
    assert abs(float(images.std(correction=0)) - 1) < 1e-5


def test_a_shuffled_last_batch_of_one_joins_the_batch_before() -> None:
    volumes = make_volumes()
    assert [len(labels) for _, labels in volumes.batches("train", 4, seed=0)] == [4, 5]
    assert [len(labels) for _, labels in volumes.batches("train", 9, seed=0)] == [9]
    assert [len(labels) for _, labels in volumes.batches("train", 1, seed=0)] == [1] * 9


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_shuffled_batches_are_a_permutation_that_follows_from_the_seed(
    count: int, batch_size: int, seed: int
) -> None:
    images = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1, 1)
    volumes = make_volumes(
        train=Split(images, torch.arange(count) % 2),
        val=make_split(1, (1, 1, 1, 1)),
        test=make_split(1, (1, 1, 1, 1)),
    )
    mean, std = volumes.mean_and_std

    def read() -> list[int]:
        batches = list(volumes.batches("train", batch_size, seed=seed))
        for part, labels in batches:
            assert torch.equal((part.flatten() * std + mean).round().long() % 2, labels)
        return [round(float(x * std + mean)) for part, _ in batches for x in part.flatten()]

    first = read()
    assert sorted(first) == list(range(count))
    assert read() == first


def test_another_seed_is_another_order() -> None:
    volumes = make_volumes(60)
    first, second = (next(volumes.batches("train", 60, seed=seed))[0] for seed in (0, 1))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("val", Split(torch.zeros(2, 1, 2, 3, 4), torch.zeros(2).long()), "'val': images must be uint8"),
        ("test", make_split(2, (2, 3, 4)), r"split 'test': images must be uint8 \[N, C, D, H, W\]"),
        ("train", Split(torch.zeros(0, 1, 2, 3, 4).byte(), torch.zeros(0).long()), "images .* not empty"),
        ("val", make_split(2, labels=[0, 1, 0]), r"'val': labels must be int64 \[2\], got .* \[3\]"),
        ("test", Split(make_split(2).images, torch.zeros(2)), "'test': labels must be int64 .*float32"),
        ("test", make_split(2, labels=[0, 2]), r"split 'test': labels must lie in 0..1, got 0..2"),
        ("val", make_split(2, labels=[-1, 1]), r"split 'val': labels must lie in 0..1, got -1..1"),
        ("val", make_split(2, (1, 2, 3, 5)), r"'val': images must have .*, 4\], got \[1, 2, 3, 5\]"),
    ],
)
def test_a_wrong_split_is_named(name: str, split: Split, message: str) -> None:
    with pytest.raises(ValueError, match=f"toy, .*{message}"):
        make_volumes(**{name: split})


def test_volumes_need_a_class() -> None:
    with pytest.raises(ValueError, match="toy: classes must hold at least one name"):
        Volumes("toy", (), make_split(1), make_split(1), make_split(1))


def test_batches_refuse_at_the_call() -> None:
    with pytest.raises(ValueError, match="split_name must be one of train, val, test, got 'dev'"):
        make_volumes().batches("dev", 4)
    with pytest.raises(ValueError, match="batch_size must be an int of at least 1, got 0"):
        make_volumes().batches("train", 0)


@given(count=st.integers(3, 300), seed=st.integers(0, 1000))
def test_three_ways_deals_everything_once_and_something_to_each(count: int, seed: int) -> None:
    parts = three_ways(count, "things", torch.Generator().manual_seed(seed))
    assert sorted(index for part in parts.values() for index in part) == list(range(count))
    assert min(len(part) for part in parts.values()) >= 1
    assert len(parts["train"]) >= len(parts["val"]) == len(parts["test"])


# Moving digits


def centroids(images: torch.Tensor) -> torch.Tensor:
    """Centre of light of each frame, `[N, D, 2]`, noise removed."""
    light = (images[:, 0].double() - 40).clamp(min=0)
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in light.shape[-2:])
    total = light.sum(dim=(-2, -1))
    return torch.stack([light.sum(dim=-1) @ rows / total, light.sum(dim=-2) @ columns / total], dim=-1)


@pytest.mark.parametrize("size", [(8, 20, 20), (4, 16, 30), (5, 14, 14)])
def test_digits_move_one_pixel_a_frame_where_the_label_says(size: tuple[int, int, int]) -> None:
    volumes = moving_digits(size=size, count=200)
    steps = {"left": (0.0, -1.0), "right": (0.0, 1.0), "up": (-1.0, 0.0), "down": (1.0, 0.0)}
    names = [volumes.classes[label] for label in volumes.train.labels.tolist()]
    expected = torch.tensor([steps[name.split("-")[1]] for name in names])
    moved = centroids(volumes.train.images).diff(dim=1).mean(dim=1)
    torch.testing.assert_close(moved, expected.double(), rtol=0, atol=0.15)


def test_digits_are_forty_classes_of_the_stated_shape() -> None:
    volumes = moving_digits()
    assert volumes.counts == {"train": 6000, "val": 1200, "test": 1200}
    assert (volumes.channels, volumes.size, volumes.train.images.dtype) == (1, (8, 20, 20), torch.uint8)
    assert len(set(volumes.classes)) == 40
    assert volumes.classes[:5] == ("0-left", "0-right", "0-up", "0-down", "1-left")
    for name in SPLITS:
        assert sorted(set(volumes.split(name).labels.tolist())) == list(range(40))


def test_digits_stay_inside_the_canvas() -> None:
    volumes = moving_digits(count=300)
    light = (volumes.train.images.double() - 40).clamp(min=0).sum(dim=(1, 3, 4))
    # A digit that left the canvas would lose light on its way; noise alone changes it by a few per cent.
    assert float((light / light.mean(dim=1, keepdim=True) - 1).abs().max()) < 0.1


def test_digits_follow_from_the_seed() -> None:
    first, again, other = (moving_digits(seed=seed, count=50) for seed in (1, 1, 2))
    assert identical(first, again)
    assert not identical(first, other)


def test_digits_of_the_splits_are_different_handwriting(monkeypatch: pytest.MonkeyPatch) -> None:
    from lrw.data import digits

    shown: list[torch.Tensor] = []
    draw = digits._clips

    def spy(glyphs: torch.Tensor, *rest: object) -> Split:
        shown.append(glyphs)
        return draw(glyphs, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(digits, "_clips", spy)
    moving_digits(count=5)
    train, val, test = ({glyph.numpy().tobytes() for glyph in glyphs} for glyphs in shown)
    assert min(len(train), len(val), len(test)) > 200
    assert len(train | val | test) == len(train) + len(val) + len(test)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8, 20)}, r"size must be three ints of at least 1 \(D, H, W\), got \(8, 20\)"),
        ({"size": (8, 20, 0)}, "size must be three ints of at least 1"),
        ({"size": 20}, "size must be three ints of at least 1 .* got 20"),
        ({"size": (8, 14, 20)}, r"H, W of at least 15 for D = 8, got \(8, 14, 20\)"),
        ({"size": (2, 12, 12)}, r"H, W of at least 13 for D = 2, got \(2, 12, 12\)"),
        ({"count": 4}, "count must be an int of at least 5, got 4"),
    ],
)
def test_digits_name_a_wrong_argument(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moving_digits(**arguments)  # type: ignore[arg-type]


def test_the_smallest_canvas_the_message_gives_works() -> None:
    assert moving_digits(size=(8, 15, 15), count=5).size == (8, 15, 15)
    assert moving_digits(size=(2, 13, 13), count=5).size == (2, 13, 13)


# MedMNIST


def medmnist_arrays(size: tuple[int, ...] = (4, 5, 6)) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{name}_images"] = rng.integers(0, 256, (count, *size), dtype=np.uint8)
        arrays[f"{name}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    return arrays


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
    assert (
        round(float((volumes.test.labels == 0).double().mean()), 3) == 0.768
    )  # the published majority class


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


# NIfTI


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


def test_decathlon_cubes_are_named_by_their_centre(tmp_path: Path) -> None:
    write_decathlon(tmp_path / "Task")
    description = {"labels": {"0": "background", "1": "bright", "2": "grey"}}
    (tmp_path / "Task" / "dataset.json").write_text(json.dumps(description))
    volumes = load_nifti(tmp_path / "Task", size=(5, 4, 3), cubes_per_class=6)
    assert (volumes.name, volumes.classes) == ("Task", ("background", "bright", "grey"))
    assert (volumes.channels, volumes.size) == (1, (5, 4, 3))
    assert volumes.counts == {"train": 2 * 18, "val": 18, "test": 18}
    for name in SPLITS:
        split = volumes.split(name)
        centre = split.images[:, 0, 2, 2, 1].float()
        levels = torch.tensor([0.0, 255.0, 255.0 * 80 / 180])[split.labels]
        torch.testing.assert_close(centre, levels, rtol=0, atol=3)
        assert len(set(torch.bincount(split.labels).tolist())) == 1


def test_decathlon_background_lies_near_the_structure(tmp_path: Path) -> None:
    for index in range(3):
        labels = np.zeros((20, 20, 20), dtype=np.uint8)
        labels[0:2, 0:2, 0:2] = 4
        grey = np.add.outer(np.add.outer(np.arange(20) * 1.0, np.arange(20)), np.arange(20))
        write_nifti(tmp_path / "imagesTr" / f"{index}.nii", grey)
        write_nifti(tmp_path / "labelsTr" / f"{index}.nii", labels)
    volumes = load_nifti(tmp_path, size=(8, 8, 8), cubes_per_class=20)
    assert volumes.classes == ("background", "label 4")
    # Reach is a quarter of the cube: grey, here x + y + z, stays below 3 * (1 + 2) of 57 at the centres.
    centre = volumes.train.images[:, 0, 4, 4, 4].double() / 255 * 57
    assert float(centre[volumes.train.labels == 0].max()) < 11
    assert len(set(centre[volumes.train.labels == 1].tolist())) <= 8  # 20 draws of 8 voxels


def test_cubes_at_the_rim_are_filled_with_black(tmp_path: Path) -> None:
    for index in range(3):
        write_nifti(tmp_path / "imagesTr" / f"{index}.nii", 5.0 + np.tile(np.eye(3)[:, :, None], 3))
        write_nifti(tmp_path / "labelsTr" / f"{index}.nii", np.pad(np.ones((1, 1, 1), np.uint8), 1))
    volumes = load_nifti(tmp_path, size=(9, 9, 9), cubes_per_class=1)
    inside = volumes.train.images[volumes.train.labels == 1][0, 0]
    expected = torch.zeros(9, 9, 9, dtype=torch.uint8)
    expected[3:6, 3:6, 3:6] = 255 * torch.eye(3, dtype=torch.uint8)  # the same diagonal in every slice
    assert torch.equal(inside, expected)


@needs_data
def test_decathlon_reads_the_hippocampus() -> None:
    first, again = (load(DATA / "hippocampus_nifti", seed=3) for _ in range(2))
    assert first.classes == ("background", "label 1", "label 2")
    assert first.counts == {"train": 8 * 24, "val": 2 * 24, "test": 2 * 24}
    assert (first.channels, first.size) == (1, (24, 24, 24))
    assert identical(first, again)
    assert not identical(first, load(DATA / "hippocampus_nifti", seed=4))


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
    with pytest.raises(ValueError, match="size must be three ints"):
        load_nifti(tmp_path, size=(3, 3))
    write_decathlon(tmp_path / "two", count=2)
    with pytest.raises(ValueError, match=r"volumes in .*imagesTr: at least 3 are needed .* found 2"):
        load_nifti(tmp_path / "two")
    write_nifti(tmp_path / "classes" / "a" / "0.nii", np.ones((2, 2, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"class 'a' in .*: at least 3 are needed .* found 1"):
        load_nifti(tmp_path / "classes")


# Video


def write_clip(path: Path, frames: np.ndarray, codec: str = "mpeg4") -> None:
    """Encode RGB frames uint8 [D, H, W, 3]."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), mode="w") as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def ramp_clip(count: int, colour: tuple[int, int, int], height: int = 48, width: int = 64) -> np.ndarray:
    """Frame t is `colour` at t / (count - 1) of its brightness."""
    levels = np.linspace(0, 1, count)[:, None] * np.array(colour)
    return np.broadcast_to(levels[:, None, None, :], (count, height, width, 3)).round().astype(np.uint8)


def write_clips(folder: Path, suffix: str = ".mp4", count: int = 3) -> None:
    for index in range(count):
        write_clip(folder / "red" / f"{index}{suffix}", ramp_clip(20, (250, 0, 0)))
        write_clip(folder / "blue" / f"{index}{suffix}", ramp_clip(20, (0, 0, 250)))


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
    with pytest.raises(ValueError, match="size must be three ints"):
        load_video(tmp_path, size=(0, 8, 8))
    write_clips(tmp_path, count=2)
    with pytest.raises(ValueError, match=r"class 'blue' in .*: at least 3 are needed .* found 2"):
        load_video(tmp_path)


# load


def test_load_finds_the_loader_by_what_is_there(tmp_path: Path) -> None:
    np.savez(tmp_path / "toy.NPZ", **medmnist_arrays())
    (tmp_path / "toy.NPZ.npz").rename(tmp_path / "toy.npz")
    write_decathlon(tmp_path / "task")
    for index in range(3):
        write_nifti(tmp_path / "classes" / "a" / f"{index}.nii", np.ones((2, 2, 2), dtype=np.float32))
    write_clips(tmp_path / "clips")
    assert load(size=(4, 14, 14)).name == "digits"
    assert load(str(tmp_path / "toy.npz")).size == (4, 5, 6)
    assert load(tmp_path / "task").size == (24, 24, 24)
    assert load(tmp_path / "classes", size=(2, 3, 4)).size == (2, 3, 4)
    assert load(tmp_path / "clips", size=(2, 8, 10)).channels == 3


def test_load_passes_the_seed_on() -> None:
    assert identical(load(seed=5), moving_digits(seed=5))


def test_load_says_what_it_accepts(tmp_path: Path) -> None:
    accepted = r"accepted: 'digits', .*\.npz.*imagesTr.*\.mp4"
    with pytest.raises(FileNotFoundError, match=rf"no data at 'nowhere'; {accepted}"):
        load("nowhere")
    (tmp_path / "note.txt").write_text("text")
    for spec in (tmp_path, tmp_path / "note.txt"):
        with pytest.raises(ValueError, match="is no data this library reads; accepted: 'digits'"):
            load(spec)
    np.savez(tmp_path / "toy.npz", **medmnist_arrays())
    with pytest.raises(ValueError, match=r"size must be None or the file's own \(4, 5, 6\)"):
        load(tmp_path / "toy.npz", size=(28, 28, 28))


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"needs scikit-learn, .* pip install 'lrw\[data\]'"):
        moving_digits()
