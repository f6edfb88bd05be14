"""Volumes: statistics are the training split's, batches hold every sample once, wrong splits are named."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw.data import Split, Volumes
from lrw.data.split import three_ways


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


def test_numbers_of_a_network_are_not_normalised() -> None:
    images = torch.randn(4, 2, 2, 3, 4) * 5 + 3
    split = Split(images, torch.tensor([0, 1, 0, 1]))
    volumes = Volumes("toy", ("a", "b"), split, split, split)
    assert torch.equal(next(volumes.batches("train", 4))[0], images)


def test_a_shuffled_last_batch_of_one_joins_the_batch_before() -> None:
    volumes = make_volumes()
    assert [len(labels) for _, labels in volumes.batches("train", 4, seed=0)] == [4, 5]
    assert [len(labels) for _, labels in volumes.batches("train", 9, seed=0)] == [9]
    assert [len(labels) for _, labels in volumes.batches("train", 1, seed=0)] == [1] * 9


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 2**31))
def test_shuffled_batches_are_a_permutation_that_follows_from_the_seed(count: int, batch_size: int, seed: int) -> None:
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
        (
            "val",
            Split(torch.zeros(2, 1, 2, 3, 4).double(), torch.zeros(2).long()),
            "'val': images must be uint8 or float32",
        ),
        ("val", Split(torch.zeros(2, 1, 2, 3, 4), torch.zeros(2).long()), "'val': images must be torch.uint8, as in"),
        ("test", make_split(2, (2, 3, 4)), r"split 'test': images must be uint8 or float32 \[N, C, D, H, W\]"),
        ("train", Split(torch.zeros(0, 1, 2, 3, 4).byte(), torch.zeros(0).long()), "images .* not empty"),
        ("val", make_split(2, labels=[0, 1, 0]), r"'val': labels must be int64 \[2\] or .*, got .* \[3\]"),
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
