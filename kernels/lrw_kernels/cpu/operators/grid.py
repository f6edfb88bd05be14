"""Where the outputs of a convolution meet its input."""

from math import ceil
from typing import NamedTuple

from lrw_kernels.cpu.operators.taps import Array, Taps
from lrw_kernels.cpu.step import Epilogue, Reference, Size, View, axes, strides

Triple = tuple[int, int, int]
HERE: Triple = (0, 0, 0)
EVERY: Triple = (1, 1, 1)


class Grid(NamedTuple):
    """Output pixel o of an axis meets x at start + step * o + the offsets of the taps."""

    start: Triple
    step: Triple
    taps: tuple[Taps, Taps, Taps]

    def along_w(self, taps: Taps) -> "Grid":
        """The grid with other taps along w."""
        return self._replace(taps=(*self.taps[:2], taps))


class Place(NamedTuple):
    """Where some channels of an output pixel lie: bytes from where y and the residual do."""

    y: int = 0
    residual: int = 0


class Part(NamedTuple):
    """Some pixels of a convolution, as a convolution of its own: y of x by a weight [kd, kh, kw, Cin, Cout].

    A whole one whose outputs along w come in runs of a few pixels, its phases, says in `grid` where runs meet x; the
    taps along w are each phase's own. Where there are several `places`, y and the residual are those of the channels
    at the first one, and the weight has those of all, as many at each.
    """

    y: View
    weight: Array
    grid: Grid
    epilogue: Epilogue
    places: tuple[Place, ...] = (Place(),)


def grid_fields(x: View, y: View, grid: Grid) -> dict[str, int]:
    """The grid and the sizes of both activations as fields of a record."""
    outputs = {**axes("step", grid.step), **axes("out", y.size[1:4])}
    return {**axes("size", x.size[1:4]), **axes("start", grid.start), **outputs}


def finish_fields(epilogue: Epilogue, channels: int, lanes: int) -> dict[str, Reference]:
    """The epilogue as fields of a record."""
    residual = strides("residual", epilogue.residual) if epilogue.residual else {}
    return {**epilogue.fields(ceil(channels / lanes) * lanes), **residual}


def every(of: View, first: Triple, by: Triple) -> View:
    """The sub-grid from `first`, every `by`-th element along d, h and w."""
    n, *steps = of.strides
    sizes = [max(0, -(-(size - at) // step)) for size, at, step in zip(of.size[1:4], first, by, strict=True)]
    address = of.address + sum(at * stride for at, stride in zip(first, steps, strict=True))
    strides = [stride * step for stride, step in zip(steps, by, strict=True)]
    size: Size = (of.size[0], sizes[0], sizes[1], sizes[2], of.channels)
    return View(address, (n, strides[0], strides[1], strides[2]), size)
