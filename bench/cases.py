"""Named layers of real networks: what the benchmark times and the gate checks."""

from bench.layers import Layer

CASES = (
    Layer("c3d conv2a", 64, 128, (16, 56, 56)),
    Layer("c3d conv3a", 128, 256, (8, 28, 28)),
    Layer("c3d conv3b", 256, 256, (8, 28, 28)),
    Layer("c3d conv4a", 256, 512, (4, 14, 14)),
    Layer("c3d conv4b", 512, 512, (4, 14, 14)),
    Layer("c3d conv5a", 512, 512, (2, 7, 7)),
    Layer("r3d18 layer1", 64, 64, (16, 56, 56)),
    Layer("r3d18 layer2", 128, 128, (8, 28, 28)),
    Layer("unet 32 at 64", 32, 32, (64, 64, 64)),
    Layer("unet dec1", 128, 128, (32, 32, 32)),
    Layer("medmnist layer1", 64, 64, (28, 28, 28)),
    Layer("medmnist layer3", 256, 256, (7, 7, 7)),
)
