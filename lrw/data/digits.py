"""Handwritten digits that move: a small video task that needs both what is seen and where it goes.

The digits are scikit-learn's `load_digits` (UCI optical recognition of handwritten digits, Alpaydin and
Kaynak 1998, test part, 1797 images of 8x8). The idea of moving digits is Moving MNIST's (Srivastava,
Mansimov, Salakhutdinov, ICML 2015); straight moves without bouncing, and the label, are ours.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lrw.checks import check_volume_size
from lrw.data.optional import require
from lrw.data.split import three_ways
from lrw.data.volumes import Split, Volumes

DIRECTIONS = ("left", "right", "up", "down")
"""Names of the four moves; label = digit * 4 + index here."""

# (rows, columns) per frame for each direction.
_STEPS = torch.tensor([[0, -1], [0, 1], [-1, 0], [1, 0]])
_SMALLEST_GLYPH = 8
_NOISE = 8.0
# Gathered frames held at once, in voxels: bounds the float scratch to a few hundred megabytes at any size.
_CHUNK = 8_000_000


def moving_digits(
    *, seed: int = 0, size: Sequence[int] = (8, 20, 20), count: int = 6000, tests: int | None = None
) -> Volumes:
    """Return clips uint8 `[N, 1, D, H, W]` of one digit moving at one pixel a frame, in 40 classes.

    A class is a digit and a direction, named "3-left". Digit, direction and start are random, noise has a
    deviation of 8 grey levels. `count` training clips, a fifth as many for val and for test, or `tests` of these; the
    three splits show different handwritten digits. The digit is 13/20 of the shorter side, or as much as leaves
    room for D - 1 steps. Everything follows from `seed`.

    Raises:
        ImportError: scikit-learn is not installed.
        ValueError: a wrong `size`, `count` or `tests`; a canvas with no room to move an 8x8 digit for D frames.
    """
    depth, height, width = check_volume_size(size, "size")
    if not isinstance(count, int) or count < 5:
        raise ValueError(f"count must be an int of at least 5, got {count!r}")
    if tests is not None and (not isinstance(tests, int) or tests < 1):
        raise ValueError(f"tests must be an int of at least 1, got {tests!r}")
    shorter = min(height, width)
    glyph = min(13 * shorter // 20, shorter - (depth - 1))
    if glyph < _SMALLEST_GLYPH:
        raise ValueError(
            f"size must leave room for a digit of 8x8 that moves D - 1 pixels: "
            f"H, W of at least {max(13, depth + 7)} for D = {depth}, got {(depth, height, width)}"
        )
    generator = torch.Generator().manual_seed(seed)
    images, digits = _glyphs(glyph)
    clips = {"train": count, "val": count // 5, "test": count // 5 if tests is None else tests}
    splits = {
        name: _clips(images[chosen], digits[chosen], clips[name], (depth, height, width), generator)
        for name, chosen in three_ways(len(digits), "digits", generator).items()
    }
    classes = tuple(f"{digit}-{direction}" for digit in range(10) for direction in DIRECTIONS)
    return Volumes("digits", classes, splits["train"], splits["val"], splits["test"])


def _glyphs(side: int) -> tuple[Tensor, Tensor]:
    """All handwritten digits, float32 `[1797, side, side]` in 0..255, and their values int64 `[1797]`."""
    data = require("sklearn.datasets", "scikit-learn").load_digits()
    grey = torch.from_numpy(np.asarray(data.images, dtype=np.float32)) * (255.0 / 16.0)
    larger = functional.interpolate(grey[:, None], size=(side, side), mode="bilinear", align_corners=False)
    return larger[:, 0], torch.from_numpy(np.asarray(data.target, dtype=np.int64))


def _clips(glyphs: Tensor, digits: Tensor, count: int, size: tuple[int, int, int], generator: torch.Generator) -> Split:
    """Draw `count` clips of random digits out of `glyphs [n, g, g]` on random straight paths."""
    source = torch.randint(len(glyphs), (count,), generator=generator)
    direction = torch.randint(len(DIRECTIONS), (count,), generator=generator)
    corners = _paths(direction, glyphs.shape[-1], size, generator)
    per_chunk = max(1, _CHUNK // (size[0] * size[1] * size[2]))
    images = torch.empty((count, 1, *size), dtype=torch.uint8)
    for start in range(0, count, per_chunk):
        part = slice(start, start + per_chunk)
        frames = _draw(glyphs[source[part]], corners[part], size)
        frames += _NOISE * torch.randn(frames.shape, generator=generator)
        images[part, 0] = frames.round_().clamp_(0, 255).to(torch.uint8)
    return Split(images, digits[source] * len(DIRECTIONS) + direction)


def _paths(direction: Tensor, glyph: int, size: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """Top left corner of the digit in each frame, int64 `[N, D, 2]`, inside the canvas in all frames."""
    depth, *canvas = size
    steps = _STEPS[direction]
    # On a moving axis the path spans D - 1 pixels, so its lowest corner has that much less room.
    room = torch.tensor(canvas) - glyph - steps.abs() * (depth - 1)
    lowest = torch.rand(steps.shape, generator=generator, dtype=torch.float64) * (room + 1)
    start = lowest.long() + (steps < 0) * (depth - 1)
    return start[:, None] + steps[:, None] * torch.arange(depth)[None, :, None]


def _draw(glyphs: Tensor, corners: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Put `glyphs [n, g, g]` at `corners [n, D, 2]` on black: float32 `[n, D, H, W]`."""
    _, height, width = size
    side = glyphs.shape[-1]
    # A rim of zeros takes every canvas pixel outside the digit, so that one gather draws all frames.
    padded = functional.pad(glyphs, (1, 1, 1, 1))
    rows = (torch.arange(height) - corners[..., :1] + 1).clamp(0, side + 1)
    columns = (torch.arange(width) - corners[..., 1:] + 1).clamp(0, side + 1)
    clip = torch.arange(len(glyphs))[:, None, None, None]
    return padded[clip, rows[..., None], columns[..., None, :]]
