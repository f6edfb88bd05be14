"""Reference 3D networks, by name: what the command line, the examples and the benchmarks train and time."""

from collections.abc import Callable, Sequence

from torch import nn

from lrw.nets.c3d import C3D
from lrw.nets.r3d import R3D18
from lrw.nets.unet3d import UNet3D

__all__ = ["C3D", "NAMES", "R3D18", "UNet3D", "build"]

_BUILDERS: dict[str, Callable[..., nn.Module]] = {"c3d": C3D, "r3d18": R3D18}

NAMES: tuple[str, ...] = tuple(_BUILDERS)
"""The classifiers `build` accepts; `UNet3D` segments."""


def build(
    name: str, *, in_channels: int, classes: int, input_size: Sequence[int], width: int | None = None
) -> nn.Module:
    """Return a fresh network: `[N, in_channels, D, H, W]` float -> `[N, classes]` float.

    Args:
        name: one of `NAMES`.
        in_channels: channels of the input.
        classes: number of logits.
        input_size: (D, H, W).
        width: channels of the first layer; None takes the paper's 64.

    Raises:
        ValueError: an unknown name; an argument the network refuses.
    """
    if name not in _BUILDERS:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {name!r}")
    chosen = {} if width is None else {"width": width}
    return _BUILDERS[name](in_channels=in_channels, classes=classes, input_size=input_size, **chosen)
