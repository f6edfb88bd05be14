"""The layers that are measured, and the columns that are kept of them."""

from dataclasses import dataclass
from math import prod

import numpy as np

from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile

Triple = tuple[int, int, int]
PADDING = (1, 1, 1)
SHARES = (1.0, 0.5, 0.25)
PRECISIONS: tuple[Precision, ...] = ("half", "tf32", "ieee")
"""bfloat16, float32 with TF32 products, float32."""


@dataclass(frozen=True)
class Layer:
    """A 3x3x3 convolution, stride 1, padding 1: size is (D, H, W) of input and output."""

    name: str
    cin: int
    cout: int
    size: Triple
    batch: int = 16

    @property
    def flops(self) -> int:
        """Of direct convolution, two for a multiply-add."""
        return 2 * 27 * self.batch * self.cin * self.cout * prod(self.size)

    @property
    def title(self) -> str:
        """Name and shape, for people."""
        return f"{self.name} {self.cin}->{self.cout} at {'x'.join(map(str, self.size))}"


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
TINY = (Layer("tiny", 4, 8, (1, 2, 3), batch=2),)
"""What a dry run goes through."""


def select(texts: str) -> list[Layer]:
    """The layers whose names begin with one of the comma-separated `texts`, in order.

    Raises ValueError for a text that no name begins with.
    """
    wanted = [text.strip() for text in texts.split(",")]
    for text in wanted:
        if not text or not any(layer.name.startswith(text) for layer in LAYERS):
            raise ValueError(f"{text!r} begins no layer's name; there are {', '.join(layer.name for layer in LAYERS)}")
    return [layer for layer in LAYERS if layer.name.startswith(tuple(wanted))]


def kept(tile: Tile, share: float) -> tuple[int, ...]:
    """Positions kept at random, the same in every run; all of them for a share of one."""
    chosen = np.random.default_rng(1).choice(tile.positions, max(1, round(share * tile.positions)), replace=False)
    return tuple(sorted(int(p) for p in chosen))
