"""Measure Winograd layers on an NVIDIA GPU beside cuDNN: `nox -s bench_gpu`, or `python -m bench.gpu`.

Ceilings first, then forward passes, a training step of R3D-18, gradients, memory, kernels, CUDA graphs and training of
single layers, the most important first: what --minutes are too few for is named. Every figure has a gate on the error
before it. Tables and bars come last; rows are in the CSV as soon as they are known. Exit codes: 0 done, 1 something of
ours was wrong or failed, 2 wrong arguments, no GPU, or files that cannot be written, 130 stopped by Ctrl-C.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from bench.command import Parser, checked, count, file, names, positive
from bench.gpu import speedups
from bench.gpu.rows import PRECISIONS
from bench.layers import GPU, Layer, select
from lrw.backends import triton

TINY = (Layer("tiny", 16, 16, (1, 2, 3), batch=2),)
"""What a dry run goes through."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is asked for; first of all, whether there is a GPU."""
    options = arguments(argv)
    device = torch.device("cpu" if options.dry else "cuda:0")
    reason = triton.refusal(device, torch.float32)
    if reason is not None:
        advice = "run the command itself" if options.dry else "--dry goes through everything on a CPU, without times"
        print(f"bench_gpu: the backend {reason}; {advice}", file=sys.stderr)
        return 2
    from bench.gpu.running import run  # imports triton

    if options.dry:
        options.layers = TINY
    try:
        return run(options, device)
    except OSError as error:
        print(f"bench_gpu: {error}", file=sys.stderr)
        return 2


def arguments(argv: Sequence[str] | None) -> Namespace:
    """What is asked for, checked."""
    parser = Parser("bench_gpu", __doc__)
    add, known = parser.add_argument, ", ".join(layer.name for layer in GPU)
    layers = checked(partial(select, layers=GPU))
    add("--layers", type=layers, default=GPU, metavar="NAMES", help=f"or beginnings, by commas: {known}")
    add("--precisions", type=names(PRECISIONS), default=PRECISIONS, metavar="NAMES", help=", ".join(PRECISIONS))
    add("--seconds-per-figure", dest="seconds", type=positive, default=0.15, metavar="S")
    add("--minutes", type=positive, default=8.5, help="after which nothing new is begun")
    add("--processes", type=count(0), metavar="N", help="that compile kernels first; 0: none")
    add("--commit", default="", metavar="TEXT", help="of the checkout, where git does not know it")
    add("--csv", type=file, metavar="FILE", help="write the rows there too")
    add("--table", type=_table, metavar="FILE", help="put speed-ups there, as in lrw_kernels/triton")
    add("--dry", action="store_true", help="a tiny layer in Triton's interpreter, no times")
    return parser.parse_args(argv)


@checked
def _table(text: str) -> Path:
    """A file that is not there yet, or a table of speed-ups: after minutes of measuring would be too late."""
    path = file(text)
    try:
        speedups.known(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"{text!r}: {error}; accepted is such a table, or a file that is not there yet") from None
    return path
