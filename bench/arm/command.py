"""Count what layers cost on ARM, ours and its peers', and model the rest: `nox -s bench_arm`.

One table per layer. Cycles and misses are modelled, never timed. Peers are fetched once into $LRW_BENCH_CACHE, or
lrw-bench in the user's cache; a row that cannot be had says why. Exit codes: 0 done, 1 a row of ours failed, 2 wrong
arguments, missing tools or files that cannot be written, 130 stopped by Ctrl-C; what was measured until then is in the
CSV.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from bench.arm import cycles, emulator, rows, table, tools
from bench.arm.layers import LAYERS
from bench.arm.measure import OURS, Contender, measure, our_contenders, peer_contender
from bench.arm.peers import PEERS
from bench.layers import Layer, select

CROSS = "aarch64-linux-gnu-gcc"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line; --help says the rest."""
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; first of all, whether there is room for what comes of it."""
    arguments = _arguments(argv)
    try:
        tools.require(*emulator.TOOLS, *cycles.TOOLS, *([CROSS] if arguments.only != "peers" else []))
        emulator.probe_cache()
        if arguments.csv:
            rows.probe(arguments.csv)
        done = run(arguments.layers, _contenders(arguments), arguments.limit, arguments.csv, arguments.misses)
    except (RuntimeError, OSError) as reason:
        print(f"bench_arm: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbench_arm: stopped", file=sys.stderr)
        return 130
    return int(any(row.library in OURS and row.note for row in done))


def run(
    layers: Sequence[Layer], contenders: Sequence[Contender], limit: float, csv: Path | None, with_misses: bool = True
) -> list[rows.Row]:
    """Measure every layer by every contender, one after the other; tables as they are done, `csv` row by row."""
    console, done = Console(width=max(Console().width, table.WIDTH)), list[rows.Row]()
    for layer in layers:
        for contender in (contender for contender in contenders if contender.takes(layer)):
            with console.status(f"{layer.title}, {contender.library}"):
                known = _same(done, contender, layer)
                done.append(replace(known, layer=layer) if known else measure(contender, layer, limit, with_misses))
            if csv:
                rows.write(csv, done)
        if of_layer := [row for row in done if row.layer == layer]:
            console.print(table.of(of_layer))
    return done


def _same(done: Sequence[rows.Row], contender: Contender, layer: Layer) -> rows.Row | None:
    """The contender's row of an earlier layer of the same shape: a network has some twice."""
    wanted = layer.shape, contender.library, contender.share
    return next((row for row in done if (row.layer.shape, row.library, row.share) == wanted), None)


def _contenders(arguments: argparse.Namespace) -> list[Contender]:
    ours = our_contenders() if arguments.only != "peers" else []
    return ours + ([peer_contender(peer) for peer in arguments.peers] if arguments.only != "ours" else [])


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(prog="bench_arm", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ", ".join(layer.name for layer in LAYERS)
    parser.add_argument(
        "--layers", type=_layers, default=LAYERS, metavar="NAMES", help=f"or beginnings of names, by commas: {names}"
    )
    parser.add_argument("--only", choices=("ours", "peers"), help="one side")
    parser.add_argument("--peers", type=_peers, default=PEERS, metavar="NAMES", help=f"by commas: {', '.join(PEERS)}")
    parser.add_argument("--limit", type=_seconds, default=900.0, metavar="SECONDS", help="of one emulated run")
    parser.add_argument(
        "--no-misses", dest="misses", action="store_false", help="leave out the cache model, which takes longest"
    )
    parser.add_argument("--csv", type=_csv, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)


def _layers(text: str) -> list[Layer]:
    try:
        return select(text, LAYERS)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _peers(text: str) -> list[str]:
    wanted = [name.strip() for name in text.split(",")]
    if not set(wanted) <= set(PEERS):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted are {', '.join(PEERS)}")
    return list(dict.fromkeys(wanted))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}; accepted are positive numbers")
    return value


def _csv(text: str) -> Path:
    path = Path(text)
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r}; accepted is a file in a folder that exists")
    return path
