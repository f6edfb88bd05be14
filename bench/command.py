"""What the commands of the benches share: arguments refused in one line, Ctrl-C understood while imports still run."""

import argparse
import importlib
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

Value = TypeVar("Value")


class Parser(argparse.ArgumentParser):
    """Arguments by their whole names; what is wrong with them is one line, --help says the rest."""

    def __init__(self, prog: str, about: str | None) -> None:
        raw = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, description=about, formatter_class=raw, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def guarded(prog: str, module: str, word: str = "stopped") -> NoReturn:
    """Exit with the status of `module`'s main; 130, and `word`, where Ctrl-C ends it or its imports."""
    try:
        status = importlib.import_module(module).main()
    except KeyboardInterrupt:
        print(f"\n{prog}: {word}", file=sys.stderr)
        status = 130
    sys.exit(status)


def checked(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """`convert`, its ValueError said in argparse's way."""

    def check(text: str) -> Value:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return check


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """A type of argument: some of the `known`, by commas; they come in the order of `known`."""

    def convert(text: str) -> list[str]:
        wanted = [name.strip() for name in text.split(",")]
        if not set(wanted) <= set(known):
            raise ValueError(f"{text!r}; accepted are {', '.join(known)}")
        return [name for name in known if name in wanted]

    return checked(convert)


@checked
def positive(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r}; accepted are positive numbers")
    return value


def count(least: int) -> Callable[[str], int]:
    """A type of argument: whole numbers, `least` or more."""

    def convert(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise ValueError(f"{text!r}; accepted are whole numbers from {least}")
        return int(text)

    return checked(convert)


@checked
def file(text: str) -> Path:
    """A file that can be there: not a folder, in a folder."""
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{text!r}; accepted is a file in a folder that exists")
    return path
