"""Public functions whose arguments are held against the types in their signatures before anything else happens."""

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin

import numpy as np
from torch import Tensor, nn

from lrw import checks
from lrw_kernels.untrusted import shown

P = ParamSpec("P")
R = TypeVar("R")

LONGEST = 1000  # characters of a text that is no path
LARGEST = 2**63
_SINGLE = (str, bytes, Tensor, nn.Module)  # each of which could be iterated over
_SHOWN = (NoneType, bool, int, float, str)
_WORDS = {NoneType: "None", int: "a whole number", float: "a number", bool: "True or False", str: "a text"}


def typed(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which raises ValueError for an argument of another type than its signature says, and for paths that
    no file can have.

    True and False are no numbers; a text or a tensor is no collection, and of the elements of others texts alone are
    looked at. Neither are texts longer than LONGEST accepted, nor whole numbers of more than 64 bits. Annotations in
    quotes are not looked at.
    """

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        signature = _signature(function)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{function.__qualname__}: {error}") from None
        for name, value in given.items():
            parameter = signature.parameters[name]
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                _check(name, value, parameter.annotation)
        return function(*args, **kwargs)

    return checked


@cache
def _signature(function: Callable[..., object]) -> inspect.Signature:
    return inspect.signature(function)


def _check(name: str, value: object, annotation: Any) -> None:
    if annotation is nn.Module:
        checks.check_module(value, name)
    if not _fits(value, annotation):
        said = shown(value) if isinstance(value, _SHOWN) else f"of type {type(value).__name__}"
        raise ValueError(f"{name}: {said}; accepted is {_words(annotation)}")
    if isinstance(value, str | bytes | os.PathLike) and _takes_paths(annotation):
        text = os.fsdecode(value)
        if not text or "\0" in text:
            raise ValueError(f"{name}: {text[:60]!r} is no path; accepted is one without null characters")
    elif isinstance(value, str) and len(value) > LONGEST:
        raise ValueError(f"{name}: {shown(value)}; accepted are at most {LONGEST} characters")
    if isinstance(value, int) and not -LARGEST <= value < LARGEST:
        raise ValueError(f"{name}: {shown(value)}; accepted are numbers of 64 bits")


def _fits(value: object, annotation: Any) -> bool:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(annotation))
    if origin is Literal:
        return value in get_args(annotation)
    kind: Any = annotation if origin is None else origin
    if kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type):
        return True
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind in (int, float):
        return isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
    if kind is Callable:
        return callable(value)
    if kind in _SINGLE or not issubclass(kind, Iterable):
        return isinstance(value, kind)
    if not isinstance(value, Iterable) or not isinstance(value, kind) or isinstance(value, _SINGLE):
        return False
    elements: Iterable[object] = value
    return get_args(annotation) != (str,) or all(isinstance(text, str) for text in elements)


def _takes_paths(annotation: Any) -> bool:
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return any((get_origin(kind) or kind) is os.PathLike for kind in kinds)


def _words(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_words(kind) for kind in get_args(annotation)))
    kind: Any = get_origin(annotation) or annotation
    if kind in _WORDS:
        return _WORDS[kind]
    if kind is os.PathLike:
        return "a path"
    if isinstance(kind, type) and issubclass(kind, Mapping):
        return "a mapping"
    return str(getattr(kind, "__name__", kind))
