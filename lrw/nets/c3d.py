"""C3D: eight 3x3x3 convolutions, five max pools, two wide linear layers and a classifier.

Source: Tran, Bourdev, Fergus, Torresani, Paluri, "Learning Spatiotemporal Features with 3D Convolutional
Networks", ICCV 2015, figure 3.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from lrw.checks import check_count, check_volume_size

# (layer, output channels in units of `width`), grouped by the pool that ends each group.
_GROUPS: tuple[tuple[tuple[str, int], ...], ...] = (
    (("1", 1),),
    (("2", 2),),
    (("3a", 4), ("3b", 4)),
    (("4a", 8), ("4b", 8)),
    (("5a", 8), ("5b", 8)),
)


class C3D(nn.Sequential):
    """C3D for videos `[N, in_channels, D, H, W]` float -> logits `[N, classes]` float.

    The convolutions are plain `nn.Conv3d(kernel_size=3, padding=1)` named conv1, conv2, conv3a, conv3b,
    conv4a, conv4b, conv5a, conv5b with `width`, 2, 4, 4, 8, 8, 8, 8 times `width` outputs (the paper: width
    64). The first pool keeps the depth, the others halve every axis and round up, as the authors' code does
    (a side of 7 pools to 4, so 16x112x112 ends as 1x4x4).

    Ours, for volumes the paper did not have:
      - an axis that is already 1 is not pooled any further;
      - fc6 and fc7 have `min(64 * width, 4 * features)` outputs, `features` being what the last pool leaves:
        4096 at the paper's size, less where a small volume would leave most parameters in them. (Narrower
        ones starve under dropout 0.5; moving digits, width 8, six epochs: 70 % with `features`, 95 % so.)
      - `norm=True` puts a batch norm after each convolution (which then has no bias): small nets train in
        minutes with it. `norm=False` is the paper's network.

    Args:
        in_channels: channels of the input.
        classes: number of logits.
        input_size: (D, H, W); the linear layers fit this size only.
        width: outputs of conv1.
        dropout: probability after fc6 and fc7, 0 <= dropout < 1.
        norm: batch norm after each convolution.

    Raises:
        ValueError: an int below 1, an `input_size` that is not three ints, a dropout outside [0, 1).
    """

    conv1: nn.Conv3d
    conv2: nn.Conv3d
    conv3a: nn.Conv3d
    conv3b: nn.Conv3d
    conv4a: nn.Conv3d
    conv4b: nn.Conv3d
    conv5a: nn.Conv3d
    conv5b: nn.Conv3d
    fc6: nn.Linear
    fc7: nn.Linear
    fc8: nn.Linear

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 101,
        input_size: Sequence[int] = (16, 112, 112),
        width: int = 64,
        dropout: float = 0.5,
        *,
        norm: bool = True,
    ) -> None:
        check_count(in_channels, "in_channels")
        check_count(classes, "classes")
        check_count(width, "width")
        size = check_volume_size(input_size, "input_size")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}")
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        channels = in_channels
        for number, group in enumerate(_GROUPS, start=1):
            for suffix, factor in group:
                _add_convolution(layers, suffix, channels, factor * width, norm=norm)
                channels = factor * width
            size = _add_pool(layers, number, size)
        _add_head(layers, channels * math.prod(size), 64 * width, classes, dropout)
        super().__init__(layers)


def _add_convolution(
    layers: OrderedDict[str, nn.Module], suffix: str, inputs: int, outputs: int, *, norm: bool
) -> None:
    convolution = nn.Conv3d(inputs, outputs, kernel_size=3, padding=1, bias=not norm)
    _initialise(convolution)
    layers[f"conv{suffix}"] = convolution
    if norm:
        layers[f"norm{suffix}"] = nn.BatchNorm3d(outputs)
    layers[f"relu{suffix}"] = nn.ReLU(inplace=True)


def _add_pool(layers: OrderedDict[str, nn.Module], number: int, size: tuple[int, int, int]) -> tuple[int, int, int]:
    """Append pool `number` for activations of `size` and return the size it leaves."""
    depth, height, width = size
    window = (2 if number > 1 and depth > 1 else 1, 2 if height > 1 else 1, 2 if width > 1 else 1)
    if window == (1, 1, 1):
        return size
    # Rounding up is asked for only where it differs, so that even sizes give the plainest pool there is.
    odd = any(side % step for side, step in zip(size, window, strict=True))
    layers[f"pool{number}"] = nn.MaxPool3d(kernel_size=window, stride=window, ceil_mode=odd)
    return -(-depth // window[0]), -(-height // window[1]), -(-width // window[2])


def _add_head(layers: OrderedDict[str, nn.Module], features: int, limit: int, classes: int, dropout: float) -> None:
    hidden = min(limit, 4 * features)
    layers["flatten"] = nn.Flatten()
    for number, inputs in (("6", features), ("7", hidden)):
        linear = nn.Linear(inputs, hidden)
        _initialise(linear)
        layers[f"fc{number}"] = linear
        layers[f"relu{number}"] = nn.ReLU(inplace=True)
        layers[f"drop{number}"] = nn.Dropout(dropout)
    layers["fc8"] = nn.Linear(hidden, classes)


def _initialise(layer: nn.Conv3d | nn.Linear) -> None:
    """He initialisation: with torch's default, activations shrink at each of the ten layers before a ReLU."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
