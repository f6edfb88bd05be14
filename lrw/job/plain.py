"""Values out of a file, held against the annotations of what they are to become."""

from contextlib import suppress
from dataclasses import is_dataclass
from reprlib import repr as short
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

Plain = str | int | float | bool | list[int] | None


def built(value: Any, kind: Any, place: str) -> Any:
    """`value` as `kind`: a class, list[...], dict[...], a union, or a dataclass or TypedDict out of a dictionary.

    An int is a float too; a bool is neither. Raises ValueError naming the `place` in the file where it is none, or has
    other keys than the class: of nested values only as many are looked at as `kind` is deep.
    """
    if is_dataclass(kind) or is_typeddict(kind):
        return _of_fields(value, kind, place)
    origin, inner = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return _of_any(value, inner, place)
    if origin is dict and isinstance(value, dict):
        key, other = inner
        return {built(k, key, f"a key of {place}"): built(v, other, f"{place}.{short(k)}") for k, v in value.items()}
    if origin is list and isinstance(value, list):
        return [built(item, inner[0], f"{place}[{index}]") for index, item in enumerate(value)]
    fits = kind is Any or type(value) is kind or (kind is float and type(value) is int)
    if origin is not None or not fits:
        raise ValueError(f"{place}: {short(value)}; accepted is {_name(kind)}")
    return value


def _of_fields(value: Any, kind: Any, place: str) -> Any:
    hints = get_type_hints(kind)
    if not isinstance(value, dict):
        raise ValueError(f"{place}: {short(value)}; accepted are {', '.join(hints)}")
    check_keys(value, hints, place)
    return kind(**{name: built(value[name], hint, f"{place}.{name}") for name, hint in hints.items()})


def _of_any(value: Any, kinds: tuple[Any, ...], place: str) -> Any:
    kinds = kinds if value is None else tuple(kind for kind in kinds if kind is not NoneType)
    if len(kinds) == 1:
        return built(value, kinds[0], place)
    for kind in kinds:
        with suppress(ValueError):
            return built(value, kind, place)
    raise ValueError(f"{place}: {short(value)}; accepted is {' or '.join(map(_name, kinds))}")


def check_keys(found: dict[Any, Any], expected: Any, place: str) -> None:
    """Raise ValueError where `found` has not the keys `expected`, no more and no less."""
    missing = [key for key in expected if key not in found]
    more = [key for key in found if key not in expected]
    if missing or more:
        raise ValueError(f"{place}: missing {short(missing)}, not expected {short(more)}")


def _name(kind: Any) -> str:
    return str(kind) if get_origin(kind) is not None else kind.__name__
