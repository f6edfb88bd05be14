"""A package whose names are there from the start, and whose modules are imported when one of their names is used."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class Package(ModuleType):
    """A package with some names from modules that are imported late; such a module may be called like what it has.

    Python binds an imported module in its package. Where the package has a function of that name, it keeps it.
    """

    _late: Mapping[str, str]  # modules by the names that they have

    def __getattr__(self, name: str) -> Any:
        if name not in self._late:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = vars(self)[name] = getattr(import_module(self._late[name]), name)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in self._late):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._late})


def from_modules(package: str, **names: str) -> None:
    """Give `package` names out of modules of its own, as "first second" by module; each comes when it is used."""
    module = sys.modules[package]
    module.__dict__["_late"] = {name: f"{package}.{of}" for of, together in names.items() for name in together.split()}
    module.__class__ = Package
