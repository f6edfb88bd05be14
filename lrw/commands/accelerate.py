"""`lrw accelerate`: what a network becomes in this process, part by part, and what it gains."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lrw import chart, checks
from lrw.accelerate import AccelerationReport, accelerate
from lrw.commands import networks, options

_OPTIONS = {"net": "--net", "example_input": "--input", "rtol": "--rtol", "threads": "--threads", "path": "--figure"}


def add(commands: Any) -> None:
    """Declare the command in argparse's `commands`."""
    p = commands.add_parser(
        "accelerate",
        allow_abbrev=False,
        help="time a network, accelerated and as it is, and report its parts",
        description="Make a network programs of vector kernels for this machine, as lrw.accelerate does, time them "
        "beside the network itself, and report what computes each part and how long that takes.",
    )
    p.add_argument("--net", required=True, metavar="NET", help="PACKAGE.MODULE:FUNCTION, which gives the network, or "
                   "FILE.pt2 of torch.export.save: reading one may run code that is in it")  # fmt: skip
    p.add_argument("--input", required=True, type=options.shape, action="append", metavar="NxCxDxHxW", dest="inputs",
                   help="random normal numbers the network is called with; once for each argument")  # fmt: skip
    p.add_argument("--rtol", type=float, default=1e-4, metavar="ERROR", help="largest error bound of a tile, over the "
                   "largest output of the layer (default: 1e-4)")  # fmt: skip
    p.add_argument("--threads", type=int, metavar="N", help="of both networks (default: torch's number)")
    p.add_argument("--no-measure", dest="measure", action="store_false", help="tiles as formulas say, none is timed")
    p.add_argument("--figure", type=Path, metavar="FILE", help=f"draw the parts there ({', '.join(chart.FORMATS)})")
    p.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    p.set_defaults(run=_run, stopped="kernels and timings that are done are kept")


def _run(arguments: argparse.Namespace) -> int:
    try:
        report = _report(arguments)
    except ValueError as error:
        name, colon, rest = str(error).partition(":")  # lrw.accelerate names its arguments, which are options here
        raise ValueError(f"{_OPTIONS.get(name, name)}{colon}{rest}") from error
    print(report.json() if arguments.json else report)
    return 0


def _report(arguments: argparse.Namespace) -> AccelerationReport:
    """The report, all of it measured, and its figure where one is asked for. Raises what is not accepted first."""
    from rich.console import Console

    if arguments.figure is not None:
        chart.check(arguments.figure)
    net, inputs = networks.named(arguments.net), tuple(map(_random, arguments.inputs))
    with Console(stderr=True).status(f"accelerating {arguments.net}"), _threads(arguments.threads):
        fast = accelerate(net, inputs, rtol=arguments.rtol, measure=arguments.measure)
        report: AccelerationReport = fast.report  # type: ignore[assignment]
        if arguments.figure is not None:
            report.figure(arguments.figure)
        _ = report.measured  # on these threads
    return report


def _random(shape: Sequence[int]) -> Tensor:
    """Normal numbers, always the same. Raises ValueError for sizes that torch cannot make."""
    try:
        return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    except (RuntimeError, MemoryError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"--input: {'x'.join(map(str, shape))}: cannot be made here ({reason})") from error


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """A block that runs on `count` threads of torch's. Raises ValueError for a number that is none."""
    before = torch.get_num_threads()
    if count is not None:
        checks.check_count(count, "--threads")
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
