"""Named layers of real networks: what the benchmark times and the gate checks."""

from dataclasses import dataclass

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """One 3x3x3, stride 1, padding 1 convolution at batch 1, as its network uses it."""

    name: str
    cin: int
    cout: int
    size: Triple


CASES = (
    Case("c3d conv2a", 64, 128, (16, 56, 56)),
    Case("c3d conv3a", 128, 256, (8, 28, 28)),
    Case("c3d conv3b", 256, 256, (8, 28, 28)),
    Case("c3d conv4a", 256, 512, (4, 14, 14)),
    Case("c3d conv4b", 512, 512, (4, 14, 14)),
    Case("c3d conv5a", 512, 512, (2, 7, 7)),
    Case("r3d18 layer1", 64, 64, (16, 56, 56)),
    Case("r3d18 layer2", 128, 128, (8, 28, 28)),
    Case("unet 32 at 64", 32, 32, (64, 64, 64)),
    Case("unet dec1", 128, 128, (32, 32, 32)),
    Case("medmnist layer1", 64, 64, (28, 28, 28)),
    Case("medmnist layer3", 256, 256, (7, 7, 7)),
)
