"""What a builder takes and gives: views of activations, and steps to run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import BYTES, FLOAT, KIB, LINE, Machine, whole_lines
from lrw_kernels.codegen.records import Record
from lrw_kernels.network.operators import BY_CHANNEL, Pointwise

Size = tuple[int, int, int, int, int]
Strides = tuple[int, int, int, int]
Table = npt.NDArray[Any]
SPREAD = 4 * KIB  # bytes of a plane, from which on several lie in one place of a first-level cache
SUMS = 4  # vectors of a part of Sums
ITEMS = 16  # work items at least, where there is enough to share out


class View(NamedTuple):
    """Activations [N, D, H, W, C], C contiguous, at an address, symbolic or not; bytes from sample to sample, plane to
    plane, row to row, pixel to pixel. They may be some channels of a wider buffer."""

    address: int
    strides: Strides
    size: Size

    @property
    def channels(self) -> int:
        """C, the number of channels."""
        return self.size[4]

    @property
    def pixels(self) -> int:
        """N * D * H * W, the number of pixels."""
        return prod(self.size[:4])

    def some(self, first: int, count: int) -> "View":
        """The view of channels first..first + count of the same pixels."""
        return View(self.address + first * FLOAT, self.strides, (*self.size[:4], count))

    @property
    def side_by_side(self) -> bool:
        """Whether the channels of neighbours along w follow one another."""
        return self.strides[3] == self.channels * FLOAT

    def together(self, pixels: int) -> "View":
        """The view of so many neighbours along w at a time as one pixel with the channels of all, where they lie side
        by side; what is left of a row is left out."""
        n, d, h, w = self.strides
        size = (*self.size[:3], self.size[3] // pixels, self.channels * pixels)
        return View(self.address, (n, d, h, w * pixels), size)

    def widened(self, most: int) -> "View":
        """The view with rows of up to so many pixels, where one row follows the other: h and w are shared out anew."""
        n, d, h, w = self.strides
        height, width = self.size[2:4]
        if h != w * width:
            return self
        row = max(wide for wide in range(width, max(width, most) + 1) if height * width % wide == 0)
        return View(self.address, (n, d, w * row, w), (*self.size[:2], height * width // row, row, self.channels))

    def merged(self) -> tuple[Sequence[int], Sequence[int]]:
        """Sizes and strides of n, d, h, w with as many pixels as possible in w, the others moved out of the way."""
        sizes, strides = [*self.size[:4]], [*self.strides]
        for axis in (2, 1, 0):
            if strides[axis] != sizes[3] * strides[3] and sizes[axis] != 1:
                break
            sizes[3] *= sizes[axis]
            sizes[axis] = 1
        return sizes, strides

    @property
    def dense(self) -> bool:
        """Whether the activations are one piece of memory, without gaps between pixels."""
        sizes, strides = self.merged()
        return sizes[:3] == [1, 1, 1] and strides[3] == self.channels * FLOAT


def view(address: int, size: Size, channels: int | None = None) -> View:
    """The view of `size` at `address` in a buffer of so many `channels`, dense otherwise."""
    return View(address, dense_strides((*size[:4], size[4] if channels is None else channels), FLOAT), size)


def dense_strides(size: Size, number: int) -> Strides:
    """The strides in bytes of n, d, h and w of dense activations of `size`, whose numbers take `number` bytes each."""
    _, d, h, w, c = size
    pixel = c * number
    return pixel * w * h * d, pixel * w * h, pixel * w, pixel


def spread_strides(size: Size) -> Strides:
    """The strides in bytes of float32 activations of `size` with planes an odd number of cache lines apart: powers of
    two would put the planes that a transform reads together into a few places of a cache."""
    _, d, h, w, c = size
    pixel = c * FLOAT
    plane = whole_lines(pixel * w * h)
    if d == 1 or plane < SPREAD:
        return dense_strides(size, FLOAT)
    plane += LINE * (1 - plane // LINE % 2)
    return plane * d, plane, pixel * w, pixel


class Zeros(NamedTuple):
    """`size` bytes of zeros, which all records may share."""

    size: int


class Held(NamedTuple):
    """A contiguous array that is read where it lies while a program runs in the process it was built in; a library has
    a copy of it among its weights."""

    array: Table


Keep = Callable[[int], int]
"""The address of so many bytes that stay until the norm that reads an operator's outputs has read them."""
Reference = int | Table | Held | Kernel | Zeros | Sequence["Job"]
"""What a record's address refers to: itself, an array, which is copied or held, a kernel, zeros, or jobs that lie one
after the other."""


class Job(NamedTuple):
    """A kernel's record, and by field what its addresses refer to where they are no addresses yet."""

    record: Record
    refers: Mapping[str, Reference] = {}

    def but(self, **fields: Reference) -> "Job":
        """A copy of this job that differs in `fields`."""
        record = self.record.copy()
        record.set(**{name: value for name, value in fields.items() if isinstance(value, int | np.integer)})
        others = {name: value for name, value in fields.items() if not isinstance(value, int | np.integer)}
        return Job(record, {name: to for name, to in self.refers.items() if name not in fields} | others)


def job(kind: type[Record], **fields: Reference) -> Job:
    """The job of a record of `kind` with `fields`: numbers, addresses, or what addresses refer to."""
    return Job(kind()).but(**fields)


class Step(NamedTuple):
    """One parallel region: a range kernel does `items` work items of a job, with `scratch_bytes` for each thread."""

    kernel: Kernel
    job: Job
    items: int
    scratch_bytes: int = 0


class Epilogue(NamedTuple):
    """What is done to outputs at last: a bias added, a residual, then a function, if there is one. The bias is
    [Cout], or the address of one in whole vectors."""

    bias: Reference | None = None
    residual: View | None = None
    after: Pointwise | None = None

    @property
    def function(self) -> str:
        """The function kernels have code for, applied where records say so: ReLU where there is none, so that layers
        with and without one share kernels."""
        return "relu" if self.after is None else self.after.function

    def some(self, first: int, count: int, element: str = "float32") -> "Epilogue":
        """The same for `count` channels from the `first` on."""
        bias = None if self.bias is None else self.bias_from(first, count, element)
        residual, after = self.residual, self.after
        return Epilogue(bias, residual and residual.some(first, count), after and after.some(first, count))

    def fields(self, channels: int, element: str = "float32") -> dict[str, Reference]:
        """What all records have of it, in whole vectors of `channels` in all."""
        count = channels if self.function == BY_CHANNEL else 1
        bias, parameters = self.bias_from(0, channels, element), parameters_of(self.after, count)
        return {"bias": bias, "after": self.after is not None, "parameters": parameters}

    def bias_from(self, first: int, count: int, element: str = "float32") -> Reference:
        """`count` numbers of the bias from the `first` on, zeros beyond its end or where there is none."""
        if self.bias is None:
            return Zeros(count * BYTES[element])
        if isinstance(self.bias, np.ndarray):
            numbers = self.bias[first : first + count].astype(element)
            return np.pad(numbers, (0, count - numbers.size))
        assert isinstance(self.bias, int)
        return self.bias + first * BYTES[element]


PLAIN = Epilogue()


class Sums(NamedTuple):
    """What a convolution leaves of its outputs for the norm that reads them: for each turn of `tiles` tiles, and each
    sample in it, by channel: how many numbers there are, one of them or one like them, the sum of the differences from
    that, and the sum of the squares of those from their mean, vectors of `line` bytes from `address` on. A sample has
    `sample_tiles` tiles; turn i's part of sample n is number i + n."""

    address: int
    line: int
    tiles: int
    sample_tiles: int

    def size(self, samples: int) -> int:
        """The bytes of so many samples' parts."""
        return (ceil(samples * self.sample_tiles / self.tiles) + samples - 1) * SUMS * self.line


def parameters_of(after: Pointwise | None, count: int = 1) -> Table:
    """A function's parameters as a table of `count` at least, so that it has an address even where there are none."""
    table = np.array(after.parameters if after else (), np.float32)
    return np.pad(table, (0, max(0, count - table.size)))


@dataclass(frozen=True)
class Steps:
    """The steps of one operator, which follow one another; `shared` bytes that all of them may use lie at
    `Section.SHARED`. `details` are for people to read. `sums`: what they leave for a norm, where they do."""

    steps: tuple[Step, ...]
    shared: int = 0
    details: dict[str, Any] = field(default_factory=dict)
    sums: Sums | None = None

    @staticmethod
    def of(*steps: Step) -> "Steps":
        """Steps that share nothing."""
        return Steps(steps)


def integers(values: Sequence[int]) -> npt.NDArray[np.int64]:
    """A table of int64; never empty, so that it has an address."""
    return np.array(values if len(values) else [0], np.int64)


def strides(prefix: str, of: View) -> dict[str, int]:
    """Address and strides as a record's fields: prefix, prefix_n, prefix_d, prefix_h, prefix_w."""
    names = [prefix, *(f"{prefix}_{axis}" for axis in "ndhw")]
    return dict(zip(names, (of.address, *of.strides), strict=True))


def axes(name: str, values: Sequence[int]) -> dict[str, int]:
    """Three numbers as a record's fields: name_d, name_h, name_w."""
    return {f"{name}_{axis}": value for axis, value in zip("dhw", values, strict=True)}


def share_channels(y: View, machine: Machine) -> tuple[int, int]:
    """(rows of output pixels, channels of a row that a work item takes): whole vectors of them, and all of them where
    the rows alone are ITEMS work items."""
    rows, lanes = prod(y.size[:3]), machine.lanes("float32")
    vectors = -(-y.channels // lanes)
    return rows, lanes * max(1, vectors * rows // ITEMS if rows < ITEMS else vectors)
