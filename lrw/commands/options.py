"""Options that several commands take, and consoles to write on."""

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Defaults(argparse.ArgumentDefaultsHelpFormatter):
    """Help that says what options with a value are where they are not given, unless that is nothing."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.nargs == 0 else super()._get_help_string(action)


def tile(text: str) -> int | tuple[int, int, int]:
    """Outputs per axis: M or DxHxW."""
    numbers = _numbers(text)
    if len(numbers) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor DxHxW such as 2x4x4")
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1], numbers[2])


def size(text: str) -> tuple[int, int, int]:
    """DxHxW, each from 1."""
    numbers = _numbers(text)
    if len(numbers) != 3 or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not DxHxW such as 16x112x112")
    return numbers[0], numbers[1], numbers[2]


def shape(text: str) -> tuple[int, ...]:
    """NxCxDxHxW or any other number of sizes, each from 1."""
    numbers = _numbers(text)
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not NxCxDxHxW such as 1x1x64x64x64")
    return tuple(numbers)


def _numbers(text: str) -> list[int]:
    parts = text.split("x")
    return [int(part) for part in parts] if all(part.isdecimal() for part in parts) else []


def results_console() -> "Console":
    """A console on stdout, wide enough for the tables where stdout is a file."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=150)
