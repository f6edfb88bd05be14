"""Time Winograd layers against torch's own convolution, correctness first: `nox -s bench -- layers`.

For each layer a gate compares our dense layer with a float64 direct convolution, and our pruned ones with the same
products in float64; only then are all candidates timed, taking turns in one process. One row per layer and share of
kept columns can go to a CSV with commit, machine, versions and date. Exit codes: 0 done, 1 a gate is red, 2 wrong
arguments, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from statistics import geometric_mean

import torch

from bench import certificate
from bench.command import Parser, checked, file, positive
from bench.cpu import inference, training
from bench.gate import Red
from bench.layers import CPU, select
from bench.rows import Writer
from lrw_kernels.winograd import Tile


def main(argv: Sequence[str] | None = None) -> int:
    """Run the chosen layers and print a line for each row."""
    arguments = _arguments(argv)
    torch.manual_seed(0)
    bench = training if arguments.training else inference
    stamp, gains = certificate.stamp(), dict[str, list[float]]()
    print(certificate.line(stamp))
    with Writer(arguments.csv, stamp) as writer:
        for layer in arguments.layers:
            try:
                tile = arguments.tile or inference.usual_tile(layer)
                rows = bench.measure(layer, tile, arguments.backend, arguments.seconds)
            except Red as red:
                print(red, file=sys.stderr)
                return 1
            writer.write(*rows)
            for row in rows:
                print(row.line, flush=True)
                gains.setdefault(row.kind, []).append(row.speedup)
    for kind, speedups in gains.items():
        print(f"geometric mean of {kind}: {geometric_mean(speedups):.2f}x")
    return 0


@checked
def _outputs(text: str) -> Tile | None:
    if text == "auto":
        return None
    outputs = [int(n) for n in text.split("x")]
    return Tile.of(outputs[0] if len(outputs) == 1 else outputs)


def _arguments(argv: Sequence[str] | None) -> Namespace:
    parser = Parser("bench.cpu", __doc__)
    names = ", ".join(layer.name for layer in CPU)
    layers = checked(partial(select, layers=CPU))
    parser.add_argument(
        "--layers", type=layers, default=CPU, metavar="NAMES", help=f"or beginnings, by commas: {names}"
    )
    parser.add_argument("--backend", default="auto", help="a backend by name, or auto")
    parser.add_argument("--tile", type=_outputs, help="outputs per axis, as 4 or 2x4x4, or auto")
    parser.add_argument("--seconds", type=positive, default=4.0, help="time per layer")
    parser.add_argument("--training", action="store_true", help="forward and both gradients instead of inference")
    parser.add_argument("--csv", type=file, metavar="FILE", help="write the rows there too")
    return parser.parse_args(argv)
