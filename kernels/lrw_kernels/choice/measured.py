"""The choice by timings on this machine: a few ways that formulas find likely take turns, the fastest is kept.

Weights come from memory in a network, whose other layers have used the caches meanwhile: each way has copies of its own
weights, as many as do not fit there together.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import inf
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from lrw_kernels.choice.convolution import EPS, Convolution, likely, prior
from lrw_kernels.choice.estimate import estimated_time
from lrw_kernels.codegen import compiled, store
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.compile import llvm
from lrw_kernels.codegen.crew import compile_all
from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.machine import LINE, Machine, host
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.operators.convolution import convolution
from lrw_kernels.cpu.step import Size, View, spread_strides
from lrw_kernels.cpu.winograd.problem import FORWARD, Problem
from lrw_kernels.program.layer import Form, Runner, steps
from lrw_kernels.winograd import Tile, spatial_error

WORTH = 3e-4  # seconds a layer takes by formulas, from which on several tiles are worth the kernels they need
TILES = 3  # that are tried then
ROUNDS = 7
SLOW = 1.3  # times the fastest: a way that takes so long at first is not tried again
TIE = 1.04  # times the fastest: of ways that take no longer than that, which may be noise, the most exact is taken
MOST_COPIES = 32  # of weights: more would all be small ones, which caches keep
DIRECT_COPIES = 8  # of direct convolution's, whose tables each take a while to make
DIRECT = "direct"
CHOICES, COLUMNS = "choices", "columns"  # kinds of what is kept: ways of dense layers, columns of Winograd layers
Kept = tuple[int, ...] | None  # positions of a tile; None: all
Way = tuple[Tile | None, Kept]


class Measured:
    """Chooses by timings for up to `threads` threads, of ways whose error bound is within `rtol`.

    What was timed is kept by machine and problem, here and on disk; the next process finds it there.
    """

    def __init__(self, threads: int, rtol: float = 1e-4) -> None:
        self._threads, self._rtol, self._prior = threads, rtol, prior(rtol)

    def __call__(self, of: Convolution) -> Tile | None:
        """The tile, or None for the direct way."""
        if not of.winograd or not likely(of, self._rtol, 1):
            return self._prior(of)
        return _taken(self._row(of), of)

    def milliseconds(self, of: Convolution) -> float:
        """Of the fastest way, timed here however small the layer is."""
        return min(self._row(of).values())

    def _row(self, of: Convolution) -> dict[str, float]:
        """Milliseconds of each way that was tried, by its name."""

        def ways() -> dict[str, Way]:
            tiles = likely(of, self._rtol, TILES)
            if tiles and _estimate(of, tiles[0]) < WORTH:
                tiles = tiles[:1]
            return {_name(tile): (tile, None) for tile in (self._prior(of), *tiles, None)}

        key = f"{of.text} rtol {self._rtol:g} threads {self._threads}"
        return _known_or_timed(CHOICES, key, of, ways, self._threads, SLOW)


class Columns:
    """Milliseconds of a Winograd layer over how many columns it keeps, on up to `threads` threads.

    Two numbers of columns are timed, all and a quarter; the others lie on the line through them.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __call__(self, of: Convolution, tile: Tile, kept: int) -> float:
        """Of `of` with `tile` and so many columns."""
        most = tile.positions
        few = max(1, most // 4)
        spread: Kept = tuple(i * most // few for i in range(few)) if few < most else None
        key = f"{of.text} tile {_name(tile)} threads {self._threads}"
        ways: dict[str, Way] = {str(few): (tile, spread), str(most): (tile, None)}
        row = _known_or_timed(COLUMNS, key, of, lambda: ways, self._threads, inf)
        slope = (row[str(most)] - row[str(few)]) / (most - few) if few < most else 0.0
        return max(row[str(most)] - max(slope, 0.0) * (most - kept), 0.0)


def processor() -> str:
    """The kind of processor timings hold for: its name and what it can do."""
    binding, _ = llvm()
    return f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"


def known() -> dict[str, dict[str, float]]:
    """All that was timed on this machine: milliseconds by problem and way."""
    return {**_kept(CHOICES), **_rows(CHOICES)}


def learn(rows: Mapping[str, dict[str, float]]) -> int:
    """Take over `rows` of other problems than are known here; returns how many."""
    here = known()
    new = {key: row for key, row in rows.items() if key not in here}
    rows = _rows(CHOICES)
    rows.update(new)
    _keep(CHOICES, rows)
    return len(new)


def _taken(row: dict[str, float], of: Convolution) -> Tile | None:
    """The most exact of the fastest ways."""
    near = [_way(name, of) for name, ms in row.items() if ms <= TIE * min(row.values())]
    return min(near, key=lambda tile: 0.0 if tile is None else spatial_error(tile, of.cin, EPS))


def _name(tile: Tile | None) -> str:
    return DIRECT if tile is None else "x".join(map(str, tile.outputs))


def _way(name: str, of: Convolution) -> Tile | None:
    return None if name == DIRECT else Tile.of([int(m) for m in name.split("x")], of.taps)


def _estimate(of: Convolution, tile: Tile) -> float:
    return estimated_time(tile, of.cin, of.cout, of.output, batch=of.batch)


def _known_or_timed(
    kind: str, key: str, of: Convolution, ways: Callable[[], Mapping[str, Way]], threads: int, slow: float
) -> dict[str, float]:
    """Milliseconds of each of the `ways`: as kept under `key`, or timed in turns; those that take `slow` times the
    fastest are not tried again."""
    rows = _rows(kind)
    if key not in rows:
        x, y = (_filled(size[0] * spread_strides(size)[0]) for size in _sizes(of))
        runs = {name: _run(of, *way, host(), threads, x, y) for name, way in ways().items()}
        compile_all([kernel for run in runs.values() for kernel in run.kernels])
        rows[key] = _race({name: run.run for name, run in runs.items()}, slow)
        _keep(kind, rows)
    return dict(rows[key])


def _race(runs: Mapping[str, Callable[[], None]], slow: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # touches its memory
    for _ in range(ROUNDS):
        for name, run in runs.items():
            best = min((min(taken) for taken in times.values() if taken), default=0.0)
            if not times[name] or min(times[name]) <= slow * best:
                began = perf_counter()
                run()
                times[name].append(perf_counter() - began)
    return {name: round(1e3 * float(np.median(taken)), 4) for name, taken in times.items()}


class _Run(NamedTuple):
    """One pass of a way, and the kernels it takes."""

    run: Callable[[], None]
    kernels: Sequence[Kernel]


def _run(of: Convolution, tile: Tile | None, kept: Kept, machine: Machine, threads: int, x: Memory, y: Memory) -> _Run:
    """A pass on buffers x and y."""
    bias = _filled(4 * of.cout + LINE)
    if tile is None:
        source, target = (
            View(symbolic(Section.OUTSIDE + i), spread_strides(size), size) for i, size in enumerate(_sizes(of))
        )
        weight = np.ones((*of.taps, of.cin, of.cout), np.float32)
        count = min(DIRECT_COPIES, _copies(machine, weight.nbytes))
        runners = [Runner(convolution(source, target, weight, machine, padding=of.padding), threads)
                   for _ in range(count)]  # fmt: skip

        def directly() -> None:
            runners.append(runners.pop(0))
            runners[0].run(x.address, y.address, 0, 0)

        return _Run(directly, runners[0].program.kernels)
    p = Problem(
        str(tile), of.padding, kept, kept is not None, of.batch, of.size, of.cin, of.cout, "float32", "float32",
        machine, threads, sized=True,
    )  # fmt: skip
    first, second = map(spread_strides, _sizes(of))
    runner = Runner(steps(p, Form(FORWARD, first, second, bias=True)), threads)
    copies = [_filled(p.weight_bytes) for _ in range(_copies(machine, p.weight_bytes))]

    def run() -> None:
        copies.append(copies.pop(0))
        runner.run(x.address, y.address, bias.address, 0, copies[0].address)

    return _Run(run, runner.program.kernels)


def _copies(machine: Machine, size: int) -> int:
    """How many weights of `size` bytes the last cache does not hold, or as many as are worth having."""
    return min(MOST_COPIES, 1 + machine.l3 // size)


def _sizes(of: Convolution) -> tuple[Size, Size]:
    """The sizes [N, D, H, W, C] of what goes in and comes out."""
    return (of.batch, *of.size, of.cin), (of.batch, *of.output, of.cout)


def _filled(size: int) -> Memory:
    """Memory with ones in it: what nobody wrote would all be one page of zeros."""
    memory = Memory.of(size)
    memory.view(size // 4 * 4).view(np.float32)[:] = 1.0
    return memory


def _file(kind: str) -> str | None:
    """Where timings of a kind are kept, by the kernels' sources, the compilers and this machine; None where these are
    not known."""
    name = compiled.known_here(kind)
    return name and f"{name}.json"


@lru_cache(maxsize=2)
def _rows(kind: str) -> dict[str, Any]:
    """All that was timed on this machine, by problem."""
    return _kept(kind)


def _kept(kind: str) -> dict[str, Any]:
    """The same on disk; nothing where it cannot be told what machine and kernels timings are of."""
    name = _file(kind)
    return dict(json.loads((store.read(name) if name else None) or b"{}"))


def _keep(kind: str, rows: dict[str, Any]) -> None:
    """Write `rows` to disk, beside those that other processes wrote meanwhile."""
    name = _file(kind)
    if name:
        rows |= {**_kept(kind), **rows}
        store.write(name, json.dumps(rows).encode())
