"""What a transform kernel is compiled for, as one line of text: the key of caches and the argument of intrinsics."""

import json
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import prod

from lrw_kernels.codegen.machine import ADDRESS, BYTES, whole_lines
from lrw_kernels.cpu.winograd.line import Factors, apply
from lrw_kernels.winograd import Tile
from lrw_kernels.winograd.transform import Matrix

REACH = 1 << 16  # bytes an address with an offset reaches in a load or store of a NEON register
MOST_CONSTANTS = 16  # of a table: four registers of NEON's
BETWEEN = 16 << 10  # bytes between the stages that a first-level cache holds beside what passes


@dataclass(frozen=True)
class Recipe:
    """The transform of one tile and one vector of channels.

    `way` "gather" takes a patch of activations to positions (matrices [positions, n]), "scatter" positions to a patch
    (their transposes). `table` "B" or "A" names the matrices: gather B is the input transform, scatter A the output
    transform, gather A and scatter B their adjoints. `kept` None serves any kept set through a table of offsets;
    otherwise code is generated for just these positions. `kind` is the activations' dtype; scatter can `accumulate`
    (adjoints overlap) or write `streamed` past the caches; `function` is what it may apply at last.
    `plane`, where given, is what positions lie apart, known to the code; the table then has the offsets of stretches of
    REACH bytes.
    """

    way: str
    table: str
    tile: str
    element: str
    lanes: int
    kind: str
    kept: tuple[int, ...] | None = None
    accumulate: bool = False
    streamed: bool = False
    spare_adders: bool = False
    prefetch: bool = True
    native_maximum: bool = False
    by_element: bool = False
    plane: int = 0
    function: str = "relu"

    @property
    def text(self) -> str:
        """One line; `parse` reads it back."""
        return json.dumps(asdict(self))

    @staticmethod
    @lru_cache(maxsize=256)
    def parse(text: str) -> "Recipe":
        """The recipe whose `text` this is."""
        fields = json.loads(text)
        fields["kept"] = None if fields["kept"] is None else tuple(fields["kept"])
        return Recipe(**fields)

    @cached_property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        """The matrix [outputs, inputs] that is applied along each axis, d, h and w."""
        tables = [getattr(axis, self.table) for axis in Tile.parse(self.tile).axes]
        d, h, w = tables if self.way == "gather" else [tuple(zip(*table, strict=True)) for table in tables]
        return d, h, w

    @cached_property
    def constants(self) -> tuple[Fraction, ...]:
        """The factors that code reads from a table: on `by_element` machines an fma takes one number of a vector as it
        takes a vector, and four factors need one register. Empty on others."""
        factors = Factors(spare_adders=self.spare_adders)
        for matrix in self.matrices if self.by_element else ():
            apply(matrix, [0] * len(matrix[0]), [True] * len(matrix), factors)
        return tuple(factors.seen)[:MOST_CONSTANTS]

    @property
    def inputs(self) -> tuple[int, int, int]:
        """How many numbers go in per axis: activations of a gather, positions of a scatter."""
        d, h, w = (len(matrix[0]) for matrix in self.matrices)
        return d, h, w

    @property
    def outputs(self) -> tuple[int, int, int]:
        """How many numbers come out per axis: positions of a gather, activations of a scatter."""
        d, h, w = (len(matrix) for matrix in self.matrices)
        return d, h, w

    @property
    def patch(self) -> tuple[int, int, int]:
        """How many activations a patch has per axis."""
        return self.inputs if self.way == "gather" else self.outputs

    @property
    def step(self) -> int:
        """How many activations along w lie from tile to tile."""
        return Tile.parse(self.tile).axes[2].m

    @property
    def overlap(self) -> int:
        """How many columns two neighbouring patches of a gather share."""
        return self.patch[2] - self.step

    @property
    def slots(self) -> int:
        """How many columns the ring of scratch between the stages has room for, a power of two."""
        return 1 << (self.patch[2] - 1).bit_length()

    @property
    def lines(self) -> int:
        """How many lines along w lie between the two stages: in both ways, depth and height are in positions there."""
        d, h, _ = self.outputs if self.way == "gather" else self.inputs
        return d * h

    @property
    def looped(self) -> bool:
        """Whether one loop serves all lines: less code, and more instructions, of which `by_element` machines do fewer
        at a time."""
        return self.kept is None and not self.by_element

    @cached_property
    def places(self) -> dict[int, int]:
        """Position -> its place among the kept ones, which is its number in the table."""
        kept = range(prod(self.outputs if self.way == "gather" else self.inputs)) if self.kept is None else self.kept
        return {position: place for place, position in enumerate(kept)}

    @property
    def reaches(self) -> int:
        """In how many stretches of REACH bytes the positions lie."""
        return ((len(self.places) - 1) * self.plane) // REACH + 1

    @property
    def vector_bytes(self) -> int:
        """Bytes of a vector of elements."""
        return self.lanes * BYTES[self.element]

    @property
    def result(self) -> str:
        """The dtype bias and residual are added in: the wider of those of arithmetic and activations."""
        return self.kind if BYTES[self.kind] > BYTES[self.element] else self.element

    @property
    def kind_bytes(self) -> int:
        """Bytes of a vector of activations."""
        return self.lanes * BYTES[self.kind]

    # Scratch of a call: a padded patch for the last few channels, the addresses of the patch's rows, of the padded
    # patch's and of the residual's; then the [slots, lines] between the stages, for each of some vectors.

    @property
    def rows_at(self) -> int:
        """Offset of the row addresses, behind the padded patch."""
        d, h, w = self.patch
        return whole_lines(d * h * w * self.kind_bytes)

    @property
    def pad_rows_at(self) -> int:
        """Offset of the padded patch's row addresses."""
        return self.rows_at + whole_lines(self.patch[0] * self.patch[1] * ADDRESS)

    @property
    def residual_at(self) -> int:
        """Offset of the residual's row addresses."""
        return 2 * self.pad_rows_at - self.rows_at

    @property
    def lines_at(self) -> int:
        """Offset of the lines between the two stages."""
        return 3 * self.pad_rows_at - 2 * self.rows_at

    @property
    def lines_bytes(self) -> int:
        """Bytes of the lines of one vector."""
        return self.lines * self.slots * self.vector_bytes

    @property
    def together(self) -> int:
        """How many vectors of a tile are transformed before the next tile: whose lines the first-level cache holds."""
        return max(1, BETWEEN // self.lines_bytes)

    @property
    def scratch_bytes(self) -> int:
        """Bytes of scratch of a call; a multiple of a cache line."""
        return self.lines_at + self.together * self.lines_bytes

    def needed(self) -> list[list[bool]]:
        """A table [lines][positions along w] of which positions are computed or read."""
        d, h, w = self.outputs if self.way == "gather" else self.inputs
        if self.kept is None:
            return [[True] * w] * (d * h)
        kept = set(self.kept)
        return [[line * w + i in kept for i in range(w)] for line in range(d * h)]
