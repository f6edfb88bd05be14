"""3D networks by name: what the command line, the examples and the benchmarks train and time, and one's own."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from lrw.checks import check_volume_size
from lrw.nets.c3d import C3D
from lrw.nets.own import is_own, own
from lrw.nets.r3d import R3D18
from lrw.nets.unet3d import UNet3D

__all__ = ["C3D", "CLASSIFIERS", "NAMES", "R3D18", "UNet3D", "build", "is_own", "own"]

CLASSIFIERS = ("c3d", "r3d18")
"""Those of the `NAMES` that give a score for each class and volume; "unet3d" gives one for each class and voxel."""

NAMES: tuple[str, ...] = (*CLASSIFIERS, "unet3d")
"""The networks that `build` makes."""

_LEVELS = 4  # of a U-Net where the size can be halved often enough


def build(
    name: str, *, in_channels: int, classes: int, input_size: Sequence[int], width: int | None = None
) -> nn.Module:
    """Return a fresh network: `[N, in_channels, D, H, W]` float -> `[N, classes]` float, or `[N, classes, D, H, W]`.

    Args:
        name: one of `NAMES`.
        in_channels: channels of the input.
        classes: number of logits.
        input_size: (D, H, W).
        width: channels of the first layer; None takes the network's own.

    Raises:
        ValueError: an unknown name; an argument the network refuses.
    """
    sizes: dict[str, Any] = {"in_channels": in_channels, "classes": classes}
    sizes |= {} if width is None else {"width": width}
    if name == "c3d":
        return C3D(input_size=input_size, **sizes)
    if name == "r3d18":
        return R3D18(input_size=input_size, **sizes)
    if name == "unet3d":
        return UNet3D(levels=_levels(input_size), **sizes)
    raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")


def _levels(size: Sequence[int]) -> int:
    """As many as the sides can be halved for, _LEVELS at most and two at least."""
    sides = check_volume_size(size, "input_size")
    for levels in range(_LEVELS, 1, -1):
        if not any(side % (1 << (levels - 1)) for side in sides):
            return levels
    most = 1 << (_LEVELS - 1)
    raise ValueError(f"input_size: {sides}; accepted are even sides, multiples of {most} for all {_LEVELS} levels")
