"""From a contender and a layer to a row: correctness first, then counts, modelled cycles, modelled misses."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from bench.arm import cycles, emulator, ours, peers
from bench.arm.layers import Whole
from bench.arm.program import Program
from bench.arm.rows import Row
from bench.layers import Layer
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
    row = Row(layer, contender.library, contender.version, contender.share)
    with TemporaryDirectory(prefix="lrw-bench-") as folder:
        try:
            program = contender.build(layer, Path(folder))
            row = _counted(row, program, limit, contender.wrong)
            return _with_misses(row, program, limit) if with_misses else row
        except RuntimeError as reason:
            return replace(row, note=str(reason))


def _counted(row: Row, program: Program, limit: float, wrong: float) -> Row:
    region = emulator.one_run(emulator.count(program, limit=limit))
    error, counts = _error(program, wrong), region.counts
    rates = {core: row.layer.macs / cycles.total_cycles(region.blocks, core) for core in cycles.MODELS}
    executed = {"instructions": counts.total, "fma": counts.fma, "loads": counts.loads, "stores": counts.stores}
    return replace(row, **executed, mac_per_cycle=rates, error=error)


def _with_misses(row: Row, program: Program, limit: float) -> Row:
    missed = emulator.one_run(emulator.misses(program, limit=limit))
    return replace(row, l1=missed.l1, l2=missed.l2)


def _error(program: Program, wrong: float) -> float:
    """Largest error over largest output. Raises RuntimeError where it is beyond `wrong`, or not a number."""
    y, exact = program.output(), program.expected()
    if y.shape != exact.shape:
        raise RuntimeError(f"wrong: output {list(y.shape)}, expected {list(exact.shape)}")
    error = float(np.abs(y - exact).max() / np.abs(exact).max())
    if not error <= wrong:  # NaN is wrong too
        raise RuntimeError(f"wrong: error {error:.2g} of the largest output")
    return error


def _ours(share: float, target: str, layer: Layer, folder: Path) -> Program:
    return ours.build(layer, share, folder, target)
