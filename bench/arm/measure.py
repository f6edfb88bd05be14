"""From a contender and a layer to a row: correctness first, then counts, modelled cycles, modelled misses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from bench.arm import cycles, emulator, ours, peers, words
from bench.arm.program import Program
from bench.arm.rows import Row, described, rates
from bench.gate import Red, judged
from bench.layers import Layer, Whole
from lrw.export.check import LIMITS
from lrw.version import __version__

SHARES = (1.0, 0.25)
OURS = ("lrw", "lrw half")
"""How our rows are called: with all in float32, and with the Winograd domain in half precision."""
FULL, HALF = "aarch64-linux-gnu", "aarch64-linux-gnu-fp16"
WRONG, WRONG_HALF = LIMITS["float32"], LIMITS["float16"]
"""Errors over the largest output beyond which something else was computed; what it took is of no interest."""


@dataclass(frozen=True)
class Contender:
    """A library, and how it makes a program of a layer in a folder."""

    library: str
    version: str
    share: float
    build: Callable[[Layer, Path], Program]
    wrong: float = WRONG
    whole: bool = False

    def takes(self, layer: Layer) -> bool:
        """Whether it has a row of `layer`: whole networks are for those who are given them."""
        return self.whole or not isinstance(layer, Whole)


def our_contenders() -> list[Contender]:
    """This library at each share of the columns, and with the Winograd domain in half precision."""
    full = [Contender(OURS[0], __version__, share, partial(_ours, share, FULL), whole=share == 1) for share in SHARES]
    return [*full, Contender(OURS[1], __version__, 1.0, partial(_ours, 1.0, HALF), WRONG_HALF, whole=True)]


def peer_contender(peer: str) -> Contender:
    """One of `peers.PEERS`."""
    return Contender(peer, peers.version(peer), 1.0, partial(peers.build, peer))


def measure(contender: Contender, layer: Layer, limit: float, with_misses: bool = True) -> Row:
    """The row of `layer`, each of its two emulated runs given `limit` seconds; where one fails, the note says why."""
    row = Row(**described(layer), library=contender.library, version=contender.version, share=contender.share)
    with TemporaryDirectory(prefix="lrw-bench-") as folder:
        try:
            program = contender.build(layer, Path(folder))
            row = _counted(row, layer, program, limit, contender.wrong)
            return _with_misses(row, program, limit) if with_misses else row
        except (RuntimeError, Red) as reason:
            return replace(row, note=str(reason))


def _counted(row: Row, layer: Layer, program: Program, limit: float, wrong: float) -> Row:
    region = emulator.one_run(emulator.count(program, limit=limit))
    error, fma = error_of(program, wrong), region.count(words.is_fma)
    cycled = {core: cycles.total_cycles(region.blocks, core) for core in cycles.MODELS}
    ratios = {"per_mac": region.total / layer.macs, "fma_per_mac": 4 * fma / layer.macs}
    loads, stores = (region.count(partial(words.does, kind)) for kind in ("load", "store"))
    executed = {"instructions": region.total, "fma": fma, "loads": loads, "stores": stores}
    return replace(row, **executed, **ratios, **rates(layer, cycled), error=error)


def _with_misses(row: Row, program: Program, limit: float) -> Row:
    missed = emulator.one_run(emulator.misses(program, limit=limit))
    return replace(row, l1=missed.l1, l2=missed.l2)


def error_of(program: Program, wrong: float) -> float:
    """Largest error over largest output. Raises Red where it is beyond `wrong`."""
    y, exact = (torch.from_numpy(values) for values in (program.output(), program.expected()))
    return judged("output", y, exact, wrong * float(exact.abs().max())).largest


def _ours(share: float, target: str, layer: Layer, folder: Path) -> Program:
    return ours.build(layer, share, folder, target)
