"""The layers that are measured, and the columns that are kept of them."""

from dataclasses import dataclass

from bench import layers
from lrw_kernels.triton.precision import Precision

PADDING = (1, 1, 1)
SHARES = (1.0, 0.5, 0.25)
PRECISIONS: tuple[Precision, ...] = ("half", "tf32", "ieee")
"""bfloat16, float32 with TF32 products, float32."""


@dataclass(frozen=True)
class Layer(layers.Layer):
    """A layer on a batch."""

    batch: int = 16

    @property
    def flops(self) -> int:
        """Of direct convolution, two for a multiply-add."""
        return 2 * self.batch * self.macs


LAYERS: tuple[Layer, ...] = (
    Layer("c3d-2a", 64, 128, (16, 56, 56)),
    Layer("c3d-3b", 256, 256, (8, 28, 28)),
    Layer("c3d-4b", 512, 512, (4, 14, 14)),
    Layer("r3d18-layer1", 64, 64, (16, 56, 56)),
    Layer("r3d18-layer2", 128, 128, (8, 28, 28)),
    Layer("r3d18-layer3", 256, 256, (4, 14, 14)),
    Layer("r3d18-layer4", 512, 512, (2, 7, 7)),
    Layer("unet-dec0", 32, 32, (64, 64, 64)),
    Layer("unet-dec1", 128, 128, (32, 32, 32)),
)
TINY = (Layer("tiny", 16, 16, (1, 2, 3), batch=2),)
"""What a dry run goes through."""
