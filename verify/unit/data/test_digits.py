"""Moving digits: they move as their label says, stay on the canvas, and no handwriting is in two splits."""

import pytest
import torch

from lrw.data import SPLITS, Split, moving_digits
from verify.unit.data.small import identical


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
        ({"size": (8, 20)}, r"size: \(8, 20\); accepted are three whole numbers from 1"),
        ({"size": (8, 20, 0)}, r"size: \(8, 20, 0\); accepted are three"),
        ({"size": 20}, "size: 20; accepted are three"),
        ({"size": (8, 14, 20)}, r"H, W of at least 15 for D = 8, got \(8, 14, 20\)"),
        ({"size": (2, 12, 12)}, r"H, W of at least 13 for D = 2, got \(2, 12, 12\)"),
        ({"count": 4}, "count must be an int of at least 5, got 4"),
        ({"tests": 0}, "tests must be an int of at least 1, got 0"),
    ],
)
def test_digits_name_a_wrong_argument(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moving_digits(**arguments)  # type: ignore[arg-type]


def test_more_test_clips_leave_the_others_as_they_are() -> None:
    few, many = moving_digits(count=20), moving_digits(count=20, tests=50)
    assert many.counts == {"train": 20, "val": 4, "test": 50}
    assert torch.equal(few.train.images, many.train.images)
    assert torch.equal(few.val.images, many.val.images)


def test_the_smallest_canvas_the_message_gives_works() -> None:
    assert moving_digits(size=(8, 15, 15), count=5).size == (8, 15, 15)
    assert moving_digits(size=(2, 13, 13), count=5).size == (2, 13, 13)
