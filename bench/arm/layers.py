"""What libraries are judged on: four reference layers, the eight convolutions of C3D, and all of C3D for ours."""

from dataclasses import dataclass
from math import prod

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Layer:
    """A 3x3x3 convolution, stride 1, padding 1, batch 1, float32: size is (D, H, W) of input and output."""

    name: str
    cin: int
    cout: int
    size: Triple

    @property
    def shape(self) -> tuple[int, ...]:
        """(Cin, Cout, D, H, W): all that a library sees of it."""
        return (self.cin, self.cout, *self.size)

    @property
    def macs(self) -> int:
        """Multiply-adds of direct convolution, those with the zeros of the padding included."""
        return 27 * self.cin * self.cout * prod(self.size)

    @property
    def title(self) -> str:
        """Name and shape, for people."""
        return f"{self.name}: {self.cin}->{self.cout} at {'x'.join(map(str, self.size))}"


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


def select(texts: str) -> list[Layer]:
    """The layers whose names begin with one of the comma-separated `texts`, in order.

    Raises ValueError for a text that no name begins with.
    """
    wanted = [text.strip() for text in texts.split(",")]
    for text in wanted:
        if not text or not any(layer.name.startswith(text) for layer in LAYERS):
            known = ", ".join(layer.name for layer in LAYERS)
            raise ValueError(f"{text!r} begins no layer's name; there are {known}")
    return [layer for layer in LAYERS if layer.name.startswith(tuple(wanted))]
