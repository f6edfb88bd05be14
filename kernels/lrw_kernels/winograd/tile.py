"""A 3D tile: three transforms, one per axis, and where the tile grid starts."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import prod
from operator import index

from lrw_kernels.untrusted import shown
from lrw_kernels.winograd.points import format_points
from lrw_kernels.winograd.transform import Transform

Triple = tuple[int, int, int]
AXES = ("d", "h", "w")
MAX_PADDING = 64  # zeros on each side of an axis; a filter of 7 taps reaches 6 of them
_N = "([0-9]{1,2})"
_SPEC = re.compile(rf"F\({_N}x{_N}x{_N},{_N}x{_N}x{_N}\)(?:@{_N},{_N},{_N})?(?:\[([-/; 0-9]*)\])?")
_LONGEST = 400  # characters: what three axes of the most points take


@dataclass(frozen=True)
class Tile:
    """F(m_d x m_h x m_w, r_d x r_h x r_w): outputs per tile and filter taps, per axis.

    `origin` [3] says how many outputs the grid starts before output 0, each in 0..m-1. With free or pruned weights a
    Winograd layer is not a convolution and its output depends on the origin, so the origin is part of the layer.
    `str(tile)` is a canonical text and `Tile.parse` its inverse: checkpoints, manifests and operators carry that.
    """

    axes: tuple[Transform, Transform, Transform]
    origin: Triple = (0, 0, 0)

    def __post_init__(self) -> None:
        for axis, start, letter in zip(self.axes, triple(self.origin, "origin"), AXES, strict=True):
            if not 0 <= start < axis.m:
                raise ValueError(f"origin: {shown(start)} on axis {letter}; accepted are 0 to {axis.m - 1} for {axis}")

    @staticmethod
    def of(
        outputs: "int | Sequence[int] | Tile",
        kernel_size: int | Sequence[int] = 3,
        *,
        origin: Sequence[int] = (0, 0, 0),
        points: Sequence[str | Sequence[Fraction | int | str] | None] = (None, None, None),
    ) -> "Tile":
        """The tile with `outputs` per axis (an int stands for three) for filters of `kernel_size` taps.

        An axis whose filter has one tap has nothing to save: an int there gives m = 1 (2D convolution in 3D). A Tile is
        checked against `kernel_size` and returned. Raises ValueError naming what is not accepted.
        """
        r = triple(kernel_size, "kernel_size")
        if isinstance(outputs, Tile):
            if outputs.kernel_size != r:
                raise ValueError(f"tile: {outputs} is for kernel_size {outputs.kernel_size}, the filter has {r}")
            return outputs
        m = triple(outputs, "tile")
        if hasattr(outputs, "__index__"):
            m = _each(n if taps > 1 else 1 for n, taps in zip(m, r, strict=True))
        if isinstance(points, str) or not isinstance(points, Sequence) or len(points) != 3:
            raise ValueError(f"points: {shown(points)}; accepted are three lists of points, None for the default ones")
        d, h, w = (Transform.of(*size) for size in zip(m, r, points, strict=True))
        return _shared((d, h, w), triple(origin, "origin"))

    @staticmethod
    def parse(text: str) -> "Tile":
        """The tile whose `str` is `text`, for example "F(2x4x4,3x3x3)@0,0,0[0 1 -1;0 1 -1;0 1 -1]".

        Origin (zeros) and points (the default ones) may be left away. Raises ValueError for anything else; nothing is
        computed before lengths and ranges are known.
        """
        if not isinstance(text, str) or len(text) > _LONGEST:
            raise _no_tile(text)
        return _parse(text)

    @cached_property
    def outputs(self) -> Triple:
        """m per axis."""
        return _each(axis.m for axis in self.axes)

    @cached_property
    def kernel_size(self) -> Triple:
        """r per axis."""
        return _each(axis.r for axis in self.axes)

    @cached_property
    def inputs(self) -> Triple:
        """t = m + r - 1 per axis."""
        return _each(axis.t for axis in self.axes)

    @cached_property
    def positions(self) -> int:
        """T, the number of Winograd positions, numbered row-major over (d, h, w)."""
        return prod(self.inputs)

    @cached_property
    def amplification(self) -> float:
        """Rounding noise against direct convolution's, the product over the axes."""
        return prod(axis.amplification for axis in self.axes)

    def grid(self, output_size: Sequence[int]) -> Triple:
        """Tiles per axis that cover `output_size` [3], ragged edges included."""
        return _each(-(-(size + o) // m) for size, o, m in zip(output_size, self.origin, self.outputs, strict=True))

    def starts(self, padding: Sequence[int] = (0, 0, 0)) -> Triple:
        """Where tile 0 begins, per axis: in the outputs, or with the layer's `padding` [3] in the inputs."""
        return _each(-o - p for o, p in zip(self.origin, padding, strict=True))

    def output_size(self, input_size: Sequence[int], padding: Sequence[int]) -> Triple:
        """Outputs per axis of a stride-1 convolution of `input_size` [3] with zero `padding` [3]."""
        return _each(n + 2 * p - r + 1 for n, p, r in zip(input_size, padding, self.kernel_size, strict=True))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        size = "x".join(map(str, self.outputs)) + "," + "x".join(map(str, self.kernel_size))
        points = ";".join(format_points(axis.points) for axis in self.axes)
        return f"F({size})@{','.join(map(str, self.origin))}[{points}]"

    @property
    def name(self) -> str:
        """The short name of tables and figures, without points and origin: F(2x4x4, 3x3x3)."""
        return f"F({'x'.join(map(str, self.outputs))}, {'x'.join(map(str, self.kernel_size))})"


@lru_cache(maxsize=1024)
def _shared(axes: tuple[Transform, Transform, Transform], origin: Triple) -> Tile:
    """One tile for all who ask for the same: what it knows of itself is worked out once."""
    return Tile(axes, origin)


@lru_cache(maxsize=256)
def _parse(text: str) -> Tile:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise _no_tile(text)
    numbers = [int(n) if n else 0 for n in match.groups()[:9]]
    listed = match.group(10)
    points = [None] * 3 if listed is None else listed.split(";")
    if len(points) != 3:
        raise ValueError(f"tile: {text!r} lists points for {len(points)} axes; accepted are 3, separated by ';'")
    return Tile.of(numbers[:3], numbers[3:6], origin=numbers[6:9], points=points)


def _no_tile(text: object) -> ValueError:
    return ValueError(f"tile: {shown(text)} is not of the form 'F(2x4x4,3x3x3)@0,0,0[points;points;points]'")


def triple(value: int | Sequence[int], name: str) -> Triple:
    """`value` as three integers; an int stands for three equal ones. Raises ValueError naming `name`."""
    try:
        if isinstance(value, bool | str):
            raise TypeError
        if hasattr(value, "__index__"):
            return (index(value),) * 3
        d, h, w = (index(v) for v in value)
    except (TypeError, ValueError, RuntimeError) as error:  # the last of tensors and modules of torch
        raise ValueError(
            f"{name}: {shown(value)} is neither an int nor three of them (depth, height, width)"
        ) from error
    return (d, h, w)


def _each(values: Iterable[int]) -> Triple:
    d, h, w = values
    return (d, h, w)
