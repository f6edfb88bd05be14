"""Reading what anybody may have written: JSON within limits, its entries checked as they are taken, values in messages.

Whatever is wrong is a ValueError of one line that names the file and the entry; nothing is computed from a value before
its type and range are known.
"""

import json
import reprlib
from collections.abc import Collection, Iterator
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

MOST_DIGITS = 18  # of whole numbers in JSON: they fit 64 bits
MOST_DEPTH = 16
MOST_CHARACTERS = 32 * 2**20
MOST_WHOLE = 2**48  # of sizes and counts: far above what a machine has, far below where products leave 128 bits
Kind = TypeVar("Kind")


class _Short(reprlib.Repr):
    """`repr` cut to what a line holds, at any depth and size."""

    def repr_int(self, x: int, level: int) -> str:  # Python writes none of more than 4,300 digits
        return super().repr_int(x, level) if abs(x) < 10**40 else "a whole number of more than 40 digits"


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 3, 120, 120


def shown(value: object) -> str:
    """`value` in a message: its `repr` in one line, or the beginning and end of a long one."""
    return " ".join(map(str.strip, _SHORT.repr(value).splitlines()))


def in_a_line(error: BaseException) -> str:
    """What a library's error says, in a line that is not too long."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else f"{text[:200]}..."


def parse_json(text: str, name: str, most: int = MOST_CHARACTERS) -> Any:
    """What the JSON `text` of `name` says.

    Raises ValueError for more than `most` characters, for nesting deeper than 16, for keys that repeat, NaN,
    infinities, floats outside their range and whole numbers of more than 18 digits.
    """
    if len(text) > most:
        raise ValueError(f"{name}: {len(text)} characters of JSON; accepted are up to {most}")
    hooks: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite, "parse_constant": _finite}
    try:
        found = json.loads(text, object_pairs_hook=_each_once, **hooks)
        _check_depth(found)
    except RecursionError as error:
        raise ValueError(f"{name}: JSON nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{name}: no JSON this version reads: {error}") from error
    return found


def read_json(path: Path, name: str, most: int = MOST_CHARACTERS) -> Any:
    """What the JSON file at `path` says. Raises ValueError as `parse_json` does, OSError where it cannot be read."""
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"{name}: more than {most} bytes; accepted is JSON of up to that many")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name}: no JSON: {error}") from error
    return parse_json(text, name, most)


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MOST_DEPTH):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [value for values in inner for value in values]
    if level:
        raise ValueError(f"nested more than {MOST_DEPTH} deep")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{shown(key)} stands there twice")
        found[key] = value
    return found


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number of {len(text)} digits; accepted are up to {MOST_DIGITS}")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"the number {shown(text)}; accepted are finite ones")
    return value


class Entries:
    """A JSON object's entries, each checked as it is taken; messages begin with `prefix` and the entry's key."""

    def __init__(self, values: object, prefix: str = "") -> None:
        if not isinstance(values, dict):
            raise ValueError(f"{prefix}a JSON {type(values).__name__}; accepted is an object")
        self.values, self._prefix = values, prefix

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def only(self, keys: Collection[str]) -> None:
        """No other entries than `keys`."""
        other = next((key for key in self.values if key not in keys), None)
        if other is not None:
            raise ValueError(f"{self._prefix}{shown(other)}; accepted are {', '.join(keys)}")

    def entries(self, key: str) -> "Entries":
        """An object."""
        return Entries(self._checked(key, dict, "an object"), f"{self._prefix}{key}: ")

    def each(self, key: str) -> Iterator["Entries"]:
        """A list of objects."""
        for i, value in enumerate(self.list(key)):
            yield Entries(value, f"{self._prefix}{key}: {i}: ")

    def list(self, key: str) -> list[Any]:
        """A list of anything."""
        return self._checked(key, list, "a list")

    def text(self, key: str) -> str:
        """A string."""
        return self._checked(key, str, "a string")

    def flag(self, key: str) -> bool:
        """True or false."""
        return self._checked(key, bool, "true or false")

    def null(self, key: str) -> bool:
        """Whether there is nothing in the entry; it has to be there."""
        if key not in self.values:
            raise ValueError(f"{self._prefix}{key}: is missing")
        return self.values[key] is None

    def whole(self, key: str, least: int, most: int = MOST_WHOLE) -> int:
        """A whole number from `least` to `most`."""
        (value,) = self._wholes(key, [self.values.get(key)], 1, least, most)
        return value

    def wholes(self, key: str, count: int, least: int, most: int = MOST_WHOLE) -> tuple[int, ...]:
        """`count` whole numbers from `least` to `most`."""
        return self._wholes(key, self.values.get(key), count, least, most)

    def refused(self, key: str, accepted: str) -> ValueError:
        """The error that says what the entry is and what is accepted."""
        return ValueError(f"{self._prefix}{key}: {shown(self.values.get(key))}; accepted {accepted}")

    def _wholes(self, key: str, given: object, count: int, least: int, most: int) -> tuple[int, ...]:
        whole = isinstance(given, list) and len(given) == count and all(type(n) is int for n in given)
        if not isinstance(given, list) or not whole or not all(least <= n <= most for n in given):
            what = "is a whole number" if count == 1 else f"are {count} whole numbers"
            raise self.refused(key, f"{what} from {least} to {most}")
        return tuple(given)

    def _checked(self, key: str, kind: type[Kind], what: str) -> Kind:
        value = self.values.get(key)
        if not isinstance(value, kind):
            raise self.refused(key, f"is {what}")
        return value
