"""What libraries are judged on: four reference layers, the eight convolutions of C3D, and all of C3D for ours."""

from dataclasses import dataclass

from bench.layers import Layer


@dataclass(frozen=True)
class Whole(Layer):
    """All of C3D, pools and linear layers too, from a clip of that size to scores: cout is the number of classes."""

    @property
    def macs(self) -> int:
        """Those of its convolutions, so that it compares with libraries that were given only these."""
        return sum(layer.macs for layer in LAYERS if layer.name.startswith("c3d-"))


LAYERS: tuple[Layer, ...] = (
    Layer("ref-16", 16, 16, (8, 56, 56)),
    Layer("ref-32", 32, 32, (8, 16, 16)),
    Layer("ref-64", 64, 64, (8, 28, 28)),
    Layer("ref-128", 128, 128, (4, 14, 14)),
    Layer("c3d-1a", 3, 64, (16, 112, 112)),
    Layer("c3d-2a", 64, 128, (16, 56, 56)),
    Layer("c3d-3a", 128, 256, (8, 28, 28)),
    Layer("c3d-3b", 256, 256, (8, 28, 28)),
    Layer("c3d-4a", 256, 512, (4, 14, 14)),
    Layer("c3d-4b", 512, 512, (4, 14, 14)),
    Layer("c3d-5a", 512, 512, (2, 7, 7)),
    Layer("c3d-5b", 512, 512, (2, 7, 7)),
    Whole("whole-c3d", 3, 101, (16, 112, 112)),
)
