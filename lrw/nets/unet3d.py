"""A 3D U-Net for segmentation: a label for each voxel.

Source: Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger, "3D U-Net: Learning Dense Volumetric Segmentation from Sparse
Annotation", MICCAI 2016; channels double before each pooling there, here each level has one number of its own.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lrw.checks import check_count


class UNet3D(nn.Module):
    """`[N, in_channels, D, H, W]` float -> logits `[N, classes, D, H, W]` float; sides are multiples of 2^(levels - 1).

    Each level is two 3x3x3 convolutions with batch norm and ReLU, of `width`, 2, 4, ... times `width` channels; max
    pooling leads down, a trilinear enlargement and a concatenation with the level's own features up. Raises ValueError
    for numbers below 1 and, when called, for sizes that cannot be halved often enough.
    """

    def __init__(self, in_channels: int = 1, classes: int = 3, width: int = 16, levels: int = 4) -> None:
        for value, name in ((in_channels, "in_channels"), (classes, "classes"), (width, "width"), (levels, "levels")):
            check_count(value, name)
        super().__init__()
        widths = [width << level for level in range(levels)]
        self.down = nn.ModuleList(
            _double(inputs, outputs) for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            _double(below + here, here) for below, here in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Conv3d(width, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_channels, D, H, W]` -> `[N, classes, D, H, W]`."""
        factor = 1 << (len(self.down) - 1)
        if any(side % factor for side in x.shape[2:]):
            raise ValueError(f"input: size {list(x.shape[2:])}; accepted are multiples of {factor}")
        features = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            features.append(x)
        features.pop()
        for block in self.up:
            same = features.pop()
            x = block(torch.cat([interpolate(x, scale_factor=2, mode="trilinear"), same], dim=1))
        logits: Tensor = self.head(x)
        return logits


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        conv = nn.Conv3d(channels, outputs, kernel_size=3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        layers += [conv, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
