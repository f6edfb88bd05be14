"""Networks as others write them, small, with batch-norm statistics that matter."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def volume(*shape: int) -> Tensor:
    """Random, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def settled(net: nn.Module, seed: int = 0) -> nn.Module:
    """`net` in eval mode with norms that are far from doing nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm | nn.InstanceNorm3d) and module.affine:
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0, 0.3, generator=generator)
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.05, 2.0, generator=generator)
    return net.eval()


class MedBlock(nn.Module):
    """The basic block of MedMNIST's ResNet: its ReLUs are functions, a shortcut that is none an empty Sequential."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu(out)


class MedResNet18(nn.Module):
    """MedMNIST's ResNet-18 + 3D."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        for i, (inputs, outputs) in enumerate(pairwise(widths), start=1):
            stage = nn.Sequential(MedBlock(inputs, outputs, 1 if i == 1 else 2), MedBlock(outputs, outputs, 1))
            self.add_module(f"layer{i}", stage)
        self.avgpool = nn.AdaptiveAvgPool3d((1, 1, 1))
        self.linear = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        for i in range(1, 5):
            x = getattr(self, f"layer{i}")(x)
        x = self.avgpool(x)
        return self.linear(x.view(x.size(0), -1))


class MedicalUNet(nn.Module):
    """A U-Net as MONAI builds them: norm and activation after each convolution, strided ways down, transposed ways up,
    the skip in front of what came up, and pads by nothing where sizes agree."""

    def __init__(self, norm: Callable[[int], nn.Module], act: Callable[[], nn.Module], *, trilinear: bool) -> None:
        super().__init__()

        def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            conv = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
            return nn.Sequential(conv, norm(outputs), nn.Dropout3d(0.2), act())

        def way_up(inputs: int, outputs: int) -> nn.Module:
            if not trilinear:
                return nn.ConvTranspose3d(inputs, outputs, 2, stride=2)
            enlarged = nn.Upsample(scale_factor=2.0, mode="trilinear", align_corners=True)
            return nn.Sequential(nn.Conv3d(inputs, outputs, 1), enlarged)

        self.first = nn.Sequential(convolution(1, 4), convolution(4, 4))
        self.second = nn.Sequential(convolution(4, 8, 2), convolution(8, 8))
        self.third = nn.Sequential(convolution(8, 8, 2), convolution(8, 8))
        self.up2, self.up1 = way_up(8, 8), way_up(8, 4)
        self.back2, self.back1 = convolution(16, 8), convolution(8, 4)
        self.head = nn.Conv3d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        two = self.second(one)
        up = F.pad(self.up2(self.third(two)), [0] * 6, "replicate")
        up = self.up1(self.back2(torch.cat([two, up], dim=1)))
        return self.head(self.back1(torch.cat((one, up), dim=1))).softmax(dim=1)


def instance_norm_unet() -> nn.Module:
    """Instance norm, leaky ReLU and transposed convolutions."""
    return MedicalUNet(lambda c: nn.InstanceNorm3d(c, affine=True), lambda: nn.LeakyReLU(0.1, True), trilinear=False)


def group_norm_unet(act: Callable[[], nn.Module]) -> nn.Module:
    """Group norm, an activation and trilinear enlargement."""
    return MedicalUNet(lambda c: nn.GroupNorm(4, c), act, trilinear=True)


class Gated(nn.Module):
    """A network whose features are gated by a mask, which comes out again, with the scores of a deeper layer beside its
    own; it does not look at all it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU())
        self.gate = nn.Conv3d(1, 6, 3, padding=1)
        self.deep = nn.Sequential(nn.MaxPool3d(2), nn.Conv3d(6, 8, 3, padding=1), nn.ReLU())
        self.aux, self.head = nn.Linear(8, 3), nn.Conv3d(14, 4, 1)

    def forward(
        self, image: Tensor, batch: dict[str, Tensor], share: float
    ) -> dict[str, Tensor | tuple[Tensor, Tensor]]:
        x = self.stem(image) * self.gate(batch["mask"]).sigmoid() * share
        deep = self.deep(x)
        both = torch.cat([x, F.interpolate(deep, scale_factor=2.0, mode="nearest")], dim=1)
        return {"out": self.head(both), "others": (self.aux(deep.mean((2, 3, 4))), batch["mask"])}


def gated() -> tuple[Tensor, dict[str, Tensor], float]:
    """All arguments of a `Gated`."""
    return volume(1, 2, 4, 6, 6), {"mask": volume(1, 1, 4, 6, 6), "ids": volume(1, 3)}, 0.5
