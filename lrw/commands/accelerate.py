"""`lrw accelerate`: what a network becomes in this process, part by part, and what it gains."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lrw import chart, checks, peers
from lrw.accelerate import AccelerationReport, accelerate
from lrw.commands import networks, options
from lrw.layers import evaluating

LIMIT = 1e-4  # of the largest number that comes out
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
    p.add_argument("--peers", type=_peers, metavar="NAMES", help=f"time it beside these too, by commas: "
                   f"{', '.join(peers.MAKERS)}; or none (default: those that are installed)")  # fmt: skip
    p.add_argument("--check", action="store_true", help="fail where what comes out differs from the network's own by "
                   f"more than {LIMIT:g} of its largest number")  # fmt: skip
    p.add_argument("--figure", type=Path, metavar="FILE", help=f"draw the parts there ({', '.join(chart.FORMATS)})")
    p.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    p.set_defaults(run=_run, stopped="kernels and timings that are done are kept")


def _run(arguments: argparse.Namespace) -> int:
    try:
        report, beside = _report(arguments)
    except ValueError as error:
        name, colon, rest = str(error).partition(":")  # lrw.accelerate names its arguments, which are options here
        raise ValueError(f"{_OPTIONS.get(name, name)}{colon}{rest}") from error
    if arguments.json:
        print(json.dumps({**json.loads(report.json()), "peers_ms": beside.described()}, indent=2))
    else:
        print("\n".join([str(report), *beside.lines()]))
    if arguments.check and not report.error <= LIMIT:
        print(f"lrw accelerate: --check: error {report.error:.1e}; accepted is up to {LIMIT:g}", file=sys.stderr)
        return 1
    return 0


def _report(arguments: argparse.Namespace) -> tuple[AccelerationReport, peers.Beside]:
    """The report, all of it measured, and its figure where one is asked for. Raises what is not accepted first."""
    from rich.console import Console

    if arguments.figure is not None:
        chart.check(arguments.figure)
    net, inputs = networks.own(arguments.net), tuple(map(_random, arguments.inputs))
    with Console(stderr=True).status(f"accelerating {arguments.net}") as status, _threads(arguments.threads):
        fast = accelerate(net, inputs, rtol=arguments.rtol, measure=arguments.measure)
        report: AccelerationReport = fast.report  # type: ignore[assignment]
        if arguments.figure is not None:
            report.figure(arguments.figure)
        _ = report.measured  # on these threads
        return report, _beside(arguments.peers, net, fast, inputs, status.update)


def _beside(
    names: Sequence[str] | None, net: nn.Module, fast: nn.Module, inputs: peers.Args, say: Callable[[str], None]
) -> peers.Beside:
    """`fast` in turns with what each of the peers makes of `net`."""
    calls: dict[str, peers.Call | str] = {}
    with torch.inference_mode(False), torch.no_grad(), evaluating(net):
        for name in peers.installed() if names is None else names:
            say(f"readying {name}")
            calls[name] = peers.made(peers.MAKERS[name], net, inputs)
    say("timing")
    with torch.inference_mode():
        return peers.beside(lambda: fast(*inputs), calls)


def _peers(text: str) -> list[str]:
    names = {name.lower().replace(" ", ""): name for name in peers.MAKERS}
    wanted = [] if text == "none" else [part.strip().lower().replace(" ", "") for part in text.split(",")]
    for name in wanted:
        if name not in names:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(peers.MAKERS)}")
    return [names[name] for name in wanted]


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
