"""R3D-18: a ResNet of eight basic blocks with 3x3x3 convolutions.

Sources: Tran, Wang, Torresani, Ray, LeCun, Paluri, "A Closer Look at Spatiotemporal Convolutions for Action
Recognition", CVPR 2018 (the network, and the parameter names of torchvision's `r3d_18`); Yang et al.,
"MedMNIST v2", Scientific Data 10:41, 2023 (the small stem).
"""

from collections.abc import Sequence

from torch import Tensor, nn

from lrw.checks import check_count, check_volume_size

# Below this side a stride-2 stem would throw away what a 28^3 volume has to show.
_SMALL_SIDE = 64


class BasicBlock(nn.Module):
    """relu(conv(relu(conv(x))) + shortcut(x)), float `[N, inputs, D, H, W]` -> `[N, outputs, D', H', W']`.

    The sides are divided by the stride and rounded up. The shortcut is the identity, or a strided 1x1x1
    convolution where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(_conv3x3x3(inputs, outputs, stride), nn.BatchNorm3d(outputs), nn.ReLU(inplace=True))
        self.conv2 = nn.Sequential(_conv3x3x3(outputs, outputs, 1), nn.BatchNorm3d(outputs))
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`[N, inputs, D, H, W]` -> `[N, outputs, D', H', W']`, sides divided by the stride."""
        total: Tensor = self.conv2(self.conv1(x)) + self.downsample(x)
        activated: Tensor = self.relu(total)
        return activated


class R3D18(nn.Module):
    """R3D-18 for volumes `[N, in_channels, D, H, W]` float -> logits `[N, classes]` float.

    Four stages of two blocks with `width`, 2, 4, 8 times `width` channels; all but the first halve every
    axis. The stem is 3x7x7 with stride (1, 2, 2) as in the paper, and 3x3x3 with stride 1 when
    min(H, W) < 64 as in MedMNIST's ResNet-18+3D. Parameters carry torchvision's names, so its `r3d_18`
    weights load at the default arguments. The network ends in an average over the volume: any size runs,
    `input_size` only picks the stem.

    Args:
        in_channels: channels of the input.
        classes: number of logits.
        input_size: (D, H, W).
        width: channels of the stem and the first stage.

    Raises:
        ValueError: an int below 1, an `input_size` that is not three ints.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 400,
        input_size: Sequence[int] = (16, 112, 112),
        width: int = 64,
    ) -> None:
        check_count(in_channels, "in_channels")
        check_count(classes, "classes")
        check_count(width, "width")
        size = check_volume_size(input_size, "input_size")
        super().__init__()
        self.stem = nn.Sequential(
            _stem_convolution(in_channels, width, small=min(size[1:]) < _SMALL_SIDE),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool3d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(8 * width, classes)
        _initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, in_channels, D, H, W]` -> `[N, classes]`."""
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.stem(x)))))
        logits: Tensor = self.fc(self.flatten(self.avgpool(x)))
        return logits


def _conv3x3x3(inputs: int, outputs: int, stride: int) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def _stem_convolution(inputs: int, outputs: int, *, small: bool) -> nn.Conv3d:
    if small:
        return _conv3x3x3(inputs, outputs, 1)
    return nn.Conv3d(inputs, outputs, kernel_size=(3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(BasicBlock(inputs, outputs, stride), BasicBlock(outputs, outputs, 1))


def _initialise(net: nn.Module) -> None:
    """He initialisation for the convolutions, a small normal for the classifier, as torchvision does."""
    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.01)
            nn.init.zeros_(module.bias)
