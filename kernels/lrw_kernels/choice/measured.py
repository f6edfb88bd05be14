"""The choice by timings on this machine: a few ways that formulas find likely take turns, the fastest is kept.

Weights come from memory in a network, whose other layers have used the caches meanwhile: each way has copies of its own
weights, as many as do not fit there together.
"""

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from time import perf_counter
from typing import Any

import numpy as np

from lrw_kernels.choice.convolution import EPS, Convolution, likely, prior
from lrw_kernels.choice.estimate import estimated_time
from lrw_kernels.codegen import compiled, store
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.compile import llvm
from lrw_kernels.codegen.machine import LINE, Machine, host
from lrw_kernels.codegen.references import Section, symbolic
from lrw_kernels.cpu.operators.convolution import convolution
from lrw_kernels.cpu.step import Size, View, spread_strides
from lrw_kernels.cpu.winograd.problem import FORWARD, Problem
from lrw_kernels.program.layer import Form, Runner, steps
from lrw_kernels.winograd import Tile, spatial_error

WORTH = 3e-4  # seconds a layer takes by formulas, from which on it is worth timings
TILES = 3  # that are tried
ROUNDS = 7
SLOW = 1.3  # times the fastest: a way that takes so long at first is not tried again
TIE = 1.04  # times the fastest: of ways that take no longer than that, which may be noise, the most exact is taken
MOST_COPIES = 32  # of weights: more would all be small ones, which caches keep
DIRECT = "direct"


class Measured:
    """Chooses by timings for up to `threads` threads, of ways whose error bound is within `rtol`.

    What was timed is kept by machine and problem, here and on disk; the next process finds it there.
    """

    def __init__(self, threads: int, rtol: float = 1e-4) -> None:
        self._threads, self._rtol, self._prior = threads, rtol, prior(rtol)

    def __call__(self, of: Convolution) -> Tile | None:
        """The tile, or None for the direct way."""
        if not of.winograd or _estimate(of, self._rtol) < WORTH:
            return self._prior(of)
        key, rows = f"{of.text} rtol {self._rtol:g} threads {self._threads}", _rows()
        if key not in rows:
            rows[key] = self._timed(of)
            _keep(rows)
        return _taken(rows[key], of)

    def _timed(self, of: Convolution) -> dict[str, float]:
        """Milliseconds of each way that was tried, by its name."""
        ways = {_name(tile): tile for tile in [self._prior(of), *likely(of, self._rtol, TILES), None]}
        x, y = (_filled(size[0] * spread_strides(size)[0]) for size in _sizes(of))
        runs = {name: _run(of, tile, host(), self._threads, x, y) for name, tile in ways.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for run in runs.values():
            run()  # compiles, and touches its memory
        for _ in range(ROUNDS):
            for name, run in runs.items():
                best = min((min(taken) for taken in times.values() if taken), default=0.0)
                if not times[name] or min(times[name]) <= SLOW * best:
                    began = perf_counter()
                    run()
                    times[name].append(perf_counter() - began)
        return {name: round(1e3 * float(np.median(taken)), 4) for name, taken in times.items()}


def processor() -> str:
    """The kind of processor timings hold for: its name and what it can do."""
    binding, _ = llvm()
    return f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"


def known() -> dict[str, dict[str, float]]:
    """All that was timed on this machine: milliseconds by problem and way."""
    return {**_kept(), **_rows()}


def learn(rows: Mapping[str, dict[str, float]]) -> int:
    """Take over `rows` of other problems than are known here; returns how many."""
    here = known()
    new = {key: row for key, row in rows.items() if key not in here}
    _rows().update(new)
    _keep(_rows())
    return len(new)


def _taken(row: dict[str, float], of: Convolution) -> Tile | None:
    """The most exact of the fastest ways."""
    near = [_way(name, of) for name, ms in row.items() if ms <= TIE * min(row.values())]
    return min(near, key=lambda tile: 0.0 if tile is None else spatial_error(tile, of.cin, EPS))


def _name(tile: Tile | None) -> str:
    return DIRECT if tile is None else "x".join(map(str, tile.outputs))


def _way(name: str, of: Convolution) -> Tile | None:
    return None if name == DIRECT else Tile.of([int(m) for m in name.split("x")], of.taps)


def _estimate(of: Convolution, rtol: float) -> float:
    best = likely(of, rtol, 1)
    return estimated_time(best[0], of.cin, of.cout, of.output, batch=of.batch) if best else 0.0


def _run(
    of: Convolution, tile: Tile | None, machine: Machine, threads: int, x: Memory, y: Memory
) -> Callable[[], None]:
    """One pass of a way on buffers x and y."""
    bias = _filled(4 * of.cout + LINE)
    if tile is None:
        source, target = (
            View(symbolic(Section.OUTSIDE + i), spread_strides(size), size) for i, size in enumerate(_sizes(of))
        )
        weight = np.ones((*of.taps, of.cin, of.cout), np.float32)
        runner = Runner(convolution(source, target, weight, machine, padding=of.padding), threads)
        return lambda: runner.run(x.address, y.address, 0, 0)
    p = Problem(
        str(tile), of.padding, None, False, of.batch, of.size, of.cin, of.cout, "float32", "float32", machine, threads,
        sized=True,
    )  # fmt: skip
    first, second = map(spread_strides, _sizes(of))
    runner = Runner(steps(p, Form(FORWARD, first, second, bias=True)), threads)
    copies = [_filled(p.weight_bytes) for _ in range(min(MOST_COPIES, 1 + machine.l3 // p.weight_bytes))]

    def run() -> None:
        copies.append(copies.pop(0))
        runner.run(x.address, y.address, bias.address, 0, copies[0].address)

    return run


def _sizes(of: Convolution) -> tuple[Size, Size]:
    """The sizes [N, D, H, W, C] of what goes in and comes out."""
    return (of.batch, *of.size, of.cin), (of.batch, *of.output, of.cout)


def _filled(size: int) -> Memory:
    """Memory with ones in it: what nobody wrote would all be one page of zeros."""
    memory = Memory.of(size)
    memory.view(size // 4 * 4).view(np.float32)[:] = 1.0
    return memory


def _file() -> str | None:
    """Where timings are kept, by the kernels' sources, the compilers and this machine; None where these are not
    known."""
    name = compiled.known_here("choices")
    return name and f"{name}.json"


@lru_cache(maxsize=1)
def _rows() -> dict[str, Any]:
    """All that was timed on this machine, by problem."""
    return _kept()


def _kept() -> dict[str, Any]:
    """The same on disk; nothing where it cannot be told what machine and kernels timings are of."""
    name = _file()
    return dict(json.loads((store.read(name) if name else None) or b"{}"))


def _keep(rows: dict[str, Any]) -> None:
    """Write `rows` to disk, beside those that other processes wrote meanwhile."""
    name = _file()
    if name:
        rows |= {**_kept(), **rows}
        store.write(name, json.dumps(rows).encode())
