"""What is frozen into an exported layer, and the sizes that follow from it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod
from operator import index
from typing import Any

from lrw_kernels.aarch64.abi import ALIGNMENT
from lrw_kernels.winograd import Tile, kept_positions
from lrw_kernels.winograd.tile import Triple

FLOAT_BYTES = 4
_MAX_BYTES = 2**47  # what a process can address; far from where the compiled 64-bit offsets would wrap
_C_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class LayerSpec:
    """A compressed Winograd layer of fixed size: [N, D, H, W, Cin] to [N, D', H', W', Cout], float32.

    kept: the K positions of `tile` whose products remain, rising. bias: whether a vector [Cout] is
    added. Raises ValueError naming the field, its value and what is accepted.
    """

    name: str
    tile: Tile
    padding: Triple
    input_size: Triple
    cin: int
    cout: int
    kept: tuple[int, ...]
    bias: bool
    batch: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _C_IDENTIFIER.fullmatch(self.name):
            raise ValueError(f"name: {self.name!r}; accepted are C identifiers: letters, digits, _")
        if not isinstance(self.tile, Tile):
            raise ValueError(f"tile: {self.tile!r} is not a Tile")
        if not isinstance(self.bias, bool):
            raise ValueError(f"bias: {self.bias!r}; accepted are True and False")
        checked = {
            "padding": _integers(self.padding, "padding", 0),
            "input_size": _integers(self.input_size, "input_size", 1),
            "kept": kept_positions(self.kept, self.tile),
            **{name: _integer(getattr(self, name), name, 1) for name in ("cin", "cout", "batch")},
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if min(self.output_size) < 1:
            raise ValueError(
                f"input_size: {self.input_size} with padding {self.padding} is smaller than the filter "
                f"{self.tile.kernel_size}; accepted is at least one output per axis"
            )
        largest = max(prod(self.input_shape) * FLOAT_BYTES, prod(self.output_shape) * FLOAT_BYTES)
        largest = max(largest, self.weights_bytes, self.workspace_bytes)
        if largest > _MAX_BYTES:
            raise ValueError(f"spec: a buffer of {largest} bytes; accepted are at most {_MAX_BYTES}")

    @property
    def output_size(self) -> Triple:
        """(D', H', W')."""
        return self.tile.output_size(self.input_size, self.padding)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[N, D, H, W, Cin]."""
        return (self.batch, *self.input_size, self.cin)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """[N, D', H', W', Cout]."""
        return (self.batch, *self.output_size, self.cout)

    @property
    def weight_shape(self) -> tuple[int, int, int]:
        """[K, Cin, Cout] of U."""
        return (len(self.kept), self.cin, self.cout)

    @property
    def tiles(self) -> int:
        """Tiles over the whole batch."""
        return self.batch * prod(self.tile.grid(self.output_size))

    @property
    def weight_offsets(self) -> tuple[int, ...]:
        """Where U and the bias begin in the weights, and where the weights end, in bytes."""
        return _offsets((prod(self.weight_shape), self.cout if self.bias else 0))

    @property
    def workspace_offsets(self) -> tuple[int, ...]:
        """Where V [K, tiles, Cin], M [K, tiles, Cout] and two patches [T, C] begin, and the end, in bytes."""
        patch = self.tile.positions * max(self.cin, self.cout)
        columns = len(self.kept) * self.tiles
        return _offsets((columns * self.cin, columns * self.cout, patch, patch))

    @property
    def weights_bytes(self) -> int:
        """Size of the weights: U and bias, padding included."""
        return self.weight_offsets[-1]

    @property
    def workspace_bytes(self) -> int:
        """Scratch the caller provides."""
        return self.workspace_offsets[-1]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values; the tile as its text."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["tile"] = str(self.tile)
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "LayerSpec":
        """The inverse of `to_dict`. Raises ValueError on a missing or unknown field or a refused value."""
        names = {field.name for field in fields(LayerSpec)}
        odd = names.symmetric_difference(values) - {"batch"}
        if odd:
            state = "unknown" if odd - names else "missing"
            accepted = ", ".join(sorted(names))
            raise ValueError(f"spec: {state} field {min(odd - names or odd)!r}; fields are {accepted}")
        if not isinstance(values["tile"], str):
            raise ValueError(f"tile: {values['tile']!r}; accepted is the text of a Tile")
        return LayerSpec(**{**values, "tile": Tile.parse(values["tile"])})

    def to_json(self) -> str:
        """A JSON object, keys in the order of the fields."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> "LayerSpec":
        """The inverse of `to_json`. Raises ValueError as `from_dict`, or when `text` is no JSON object."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"spec: not JSON: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"spec: a JSON {type(values).__name__}; accepted is an object")
        return LayerSpec.from_dict(values)


def _offsets(floats: Sequence[int]) -> tuple[int, ...]:
    """Byte offsets of consecutive pieces of `floats` numbers, each aligned, and the aligned end."""
    offsets = [0]
    for count in floats:
        offsets.append(-(-(offsets[-1] + count * FLOAT_BYTES) // ALIGNMENT) * ALIGNMENT)
    return tuple(offsets)


def _integer(value: object, name: str, least: int) -> int:
    try:
        number = -1 if isinstance(value, bool) else index(value)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < least:
        raise ValueError(f"{name}: {value!r}; accepted are integers from {least}")
    return number


def _integers(values: object, name: str, least: int) -> Triple:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != 3:
        raise ValueError(f"{name}: {values!r}; accepted are three integers from {least} (d, h, w)")
    d, h, w = (_integer(value, name, least) for value in values)
    return (d, h, w)
