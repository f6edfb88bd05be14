"""Count what layers cost on ARM, ours and its peers', and model the rest: `nox -s bench_arm`.

One table per layer. Cycles and misses are modelled, never timed. Peers are fetched once into $LRW_BENCH_CACHE, or
lrw-bench in the user's cache; a row that cannot be had says why. Exit codes: 0 done, 1 a row of ours failed, 2 wrong
arguments, missing tools or files that cannot be written, 130 stopped by Ctrl-C; what was measured until then is in the
CSV.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.arm import cycles, emulator, page, tools
from bench.arm.measure import OURS, Contender, measure, our_contenders, peer_contender
from bench.arm.peers import PEERS
from bench.arm.rows import Row, described, stamp
from bench.command import Parser, checked, file, names, positive
from bench.layers import ARM, Layer, select
from bench.rows import Writer

CROSS = "aarch64-linux-gnu-gcc"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; first of all, whether there is room for what comes of it."""
    arguments = _arguments(argv)
    try:
        tools.require(*emulator.TOOLS, *cycles.TOOLS, *([CROSS] if arguments.only != "peers" else []))
        emulator.probe_cache()
        done = run(arguments.layers, _contenders(arguments), arguments.limit, arguments.csv, arguments.misses)
    except (RuntimeError, OSError) as reason:
        print(f"bench_arm: {reason}", file=sys.stderr)
        return 2
    return int(any(row.library in OURS and row.note for row in done))


def run(
    layers: Sequence[Layer], contenders: Sequence[Contender], limit: float, csv: Path | None, with_misses: bool = True
) -> list[Row]:
    """Measure every layer by every contender, one after the other; a layer's table and its rows as they are done."""
    done: list[Row] = []
    with Writer(csv, stamp() if csv else {}) as writer:
        for layer in layers:
            of_layer: list[Row] = []
            for contender in (contender for contender in contenders if contender.takes(layer)):
                known = _same(done, contender, layer)
                row = replace(known, **described(layer)) if known else measure(contender, layer, limit, with_misses)
                writer.write(row)
                of_layer.append(row)
            done += of_layer
            if of_layer:
                print(*page.lines(of_layer), "", sep="\n", flush=True)
    return done


def _same(done: Sequence[Row], contender: Contender, layer: Layer) -> Row | None:
    """The contender's row of an earlier layer of the same shape: a network has some twice."""
    wanted = layer.cin, layer.cout, layer.extent, contender.library, contender.share
    return next((row for row in done if (row.cin, row.cout, row.size, row.library, row.share) == wanted), None)


def _contenders(arguments: Namespace) -> list[Contender]:
    ours = our_contenders() if arguments.only != "peers" else []
    return ours + ([peer_contender(peer) for peer in arguments.peers] if arguments.only != "ours" else [])


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser, known = Parser("bench_arm", __doc__), ", ".join(layer.name for layer in ARM)
    layers = checked(partial(select, layers=ARM))
    some = f"or beginnings of names, by commas: {known}"
    parser.add_argument("--layers", type=layers, default=ARM, metavar="NAMES", help=some)
    parser.add_argument("--only", choices=("ours", "peers"), help="one side")
    some = f"by commas: {', '.join(PEERS)}"
    parser.add_argument("--peers", type=names(PEERS), default=PEERS, metavar="NAMES", help=some)
    parser.add_argument("--limit", type=positive, default=900.0, metavar="SECONDS", help="of one emulated run")
    without = "leave out the cache model, which takes longest"
    parser.add_argument("--no-misses", dest="misses", action="store_false", help=without)
    parser.add_argument("--csv", type=file, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)
