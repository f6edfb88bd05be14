"""Networks of one's own, by name: PACKAGE.MODULE:FUNCTION, or FILE.pt2 of torch.export.save."""

import os
import sys
from collections.abc import Callable
from importlib import import_module

from torch import nn

from lrw.nets import exported

ACCEPTED = "PACKAGE.MODULE:FUNCTION and FILE.pt2"


def is_own(name: str) -> bool:
    """Whether `name` is of that form."""
    return ":" in name or name.endswith(exported.SUFFIX)


def own(name: str) -> nn.Module:
    """The network of that name. Code of its module, or of its file, may run.

    Raises ValueError, which begins with "net: ", where there is none, and OSError where the file cannot be read.
    """
    if name.endswith(exported.SUFFIX):
        try:
            return exported.read(name)[0]
        except ValueError as error:
            raise ValueError(f"net: {error}") from error
    if ":" not in name:
        raise ValueError(f"net: {name!r}; accepted are {ACCEPTED}")
    return _called(name)


def _called(place: str) -> nn.Module:
    """What MODULE:FUNCTION gives, the current folder among those that modules are looked for in."""
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        net = _found(place)()
    except _Unusable:
        raise
    except (Exception, SystemExit) as error:  # whatever the function raises
        raise _Unusable(f"net: {place} raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(net, nn.Module):
        kind = type(net).__name__
        raise ValueError(f"net: {place} gives something of type {kind}; accepted is a torch network (nn.Module)")
    return net


class _Unusable(ValueError):
    """What a name stands for cannot be had."""


def _found(place: str) -> Callable[[], object]:
    module, _, name = place.partition(":")
    try:
        function = getattr(import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever the module raises when imported
        raise _Unusable(f"net: {place}: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise _Unusable(f"net: {place} is of type {type(function).__name__}; accepted is a function")
    return function
