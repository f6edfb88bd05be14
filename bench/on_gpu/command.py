"""Measure Winograd layers on an NVIDIA GPU beside cuDNN: `nox -s bench_gpu`, or `python bench/gpu.py`.

Ceilings first, then forward passes, a training step of R3D-18, gradients, memory, stages, CUDA graphs and training of
single layers, the most important first: what --minutes are too few for is named. Every figure has a gate on the error
before it. Tables and bars come last; rows are in the CSV as soon as they are known. Exit codes: 0 done, 1 something of
ours was wrong or failed, 2 wrong arguments, no GPU, or files that cannot be written, 130 stopped by Ctrl-C.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeVar

import torch

from bench.layers import select
from bench.on_gpu import speedups, tunings
from bench.on_gpu.layers import LAYERS, PRECISIONS, TINY, Layer
from lrw.backends import triton
from lrw_kernels.triton.precision import Precision

Value = TypeVar("Value")


@dataclass(frozen=True)
class Options:
    """What is asked for, checked."""

    device: torch.device
    layers: Sequence[Layer]
    precisions: Sequence[Precision]
    seconds: float
    minutes: float
    processes: int | None
    commit: str
    csv: Path | None
    table: Path | None
    sweep: Path | None

    @property
    def dry(self) -> bool:
        return self.device.type == "cpu"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; --help says the rest."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; first of all, whether there is a GPU."""
    given = _arguments(argv)
    device = torch.device("cpu" if given.dry else "cuda:0")
    reason = triton.refusal(device, torch.float32)
    if reason is not None:
        advice = "run bench/gpu.py itself" if given.dry else "--dry goes through everything on a CPU, without times"
        print(f"bench_gpu: the backend {reason}; {advice}", file=sys.stderr)
        return 2
    from bench.on_gpu.running import run  # imports triton

    layers = TINY if given.dry else given.layers
    options = Options(device, layers, given.precisions, given.seconds, given.minutes, given.processes, given.commit,
                      given.csv, given.table, given.sweep)  # fmt: skip
    try:
        return run(options)
    except OSError as error:
        print(f"bench_gpu: {error}", file=sys.stderr)
        return 2


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="bench_gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ", ".join(layer.name for layer in LAYERS)
    parser.add_argument(
        "--layers",
        type=_checked(partial(select, layers=LAYERS)),
        default=LAYERS,
        metavar="NAMES",
        help=f"or beginnings, by commas: {names}",
    )
    parser.add_argument(
        "--precisions", type=_checked(_precisions), default=PRECISIONS, metavar="NAMES", help=f"{', '.join(PRECISIONS)}"
    )
    parser.add_argument("--seconds-per-figure", dest="seconds", type=_checked(_positive), default=0.15, metavar="S")
    parser.add_argument("--minutes", type=_checked(_positive), default=8.5, help="after which nothing new is begun")
    parser.add_argument("--processes", type=_checked(_count), metavar="N", help="that compile kernels first; 0: none")
    parser.add_argument("--commit", default="", metavar="TEXT", help="of the checkout, where git does not know it")
    parser.add_argument("--csv", type=_checked(_file), metavar="FILE", help="write the rows there too")
    parser.add_argument(
        "--table",
        type=_checked(_table(speedups.known)),
        metavar="FILE",
        help="put speed-ups there, as in lrw_kernels/triton",
    )
    parser.add_argument(
        "--sweep",
        type=_checked(_table(tunings.known)),
        metavar="FILE",
        help="try blocks, warps and stages of each kernel instead; the faster ones go there, as in lrw_kernels/triton",
    )
    parser.add_argument("--dry", action="store_true", help="a tiny layer in Triton's interpreter, no times")
    return parser.parse_args(argv)


def _checked(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """`convert`, its ValueError said in argparse's way."""

    def checked(text: str) -> Value:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return checked


def _precisions(text: str) -> tuple[Precision, ...]:
    wanted = [name.strip() for name in text.split(",")]
    if not set(wanted) <= set(PRECISIONS):
        raise ValueError(f"{text!r}; accepted are {', '.join(PRECISIONS)}")
    return tuple(name for name in PRECISIONS if name in wanted)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError(f"{text!r}; accepted are positive numbers")
    return value


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise ValueError(f"{text!r}; accepted are whole numbers from 0")
    return int(text)


def _table(known: Callable[[Path], object]) -> Callable[[str], Path]:
    """A file that is not there yet, or that `known` can read: after minutes of measuring would be too late."""

    def checked(text: str) -> Path:
        path = _file(text)
        try:
            known(path)
        except (ValueError, OSError) as error:
            raise ValueError(f"{text!r}: {error}; accepted is such a table, or a file that is not there yet") from None
        return path

    return checked


def _file(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise ValueError(f"{text!r}; accepted is a file in a folder that exists")
    return path
