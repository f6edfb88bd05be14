"""What is said of an accelerated network: its parts, what each takes, and how far it is from the original."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw import chart
from lrw.activations import autocast
from lrw.engine import Engine
from lrw.layers import evaluating
from lrw.timing import interleaved
from lrw.trace.captured import FOLLOWING

_ROUNDS = 5  # of the times in a report


@dataclass(frozen=True)
class Part:
    """One operator: its name in the network, what computes it, milliseconds of one pass, why where that is torch."""

    name: str
    operator: str
    ms: float
    why: str = ""


@dataclass(frozen=True)
class Measured:
    """Milliseconds of a pass before and after (medians of a few, on `threads` threads), the largest difference over the
    largest output, bytes (of activations those that are read and written in a pass, and if every operator had a pass
    of its own), and the operators."""

    before_ms: float
    after_ms: float
    error: float
    threads: int
    weights_bytes: int
    workspace_bytes: int
    moved_bytes: int
    apart_bytes: int
    parts: tuple[Part, ...]


class AccelerationReport:
    """What `accelerate` made of a network, for the example input.

    What is measured is so when it is first asked for, which takes a few passes of both networks; `last`, what computed
    the latest pass ("the program", or why the network's own forward did), is there at once.
    """

    def __init__(self, engine: Engine, measure: Callable[[], Measured]) -> None:
        self._engine, self._measure = engine, measure

    @property
    def measured(self) -> Measured:
        """All numbers. Raises ValueError where there is no program any more, with the reason."""
        found: Measured | None = self._engine.measured
        if found is None:
            found = self._engine.measured = self._measure()
        return found

    @property
    def last(self) -> str:
        """What computed the latest pass: "the program", or why the network's own forward did."""
        return self._engine.last

    @property
    def before_ms(self) -> float:
        """Milliseconds of a pass of the network itself: the median of a few."""
        return self.measured.before_ms

    @property
    def after_ms(self) -> float:
        """Milliseconds of a pass now."""
        return self.measured.after_ms

    @property
    def speedup(self) -> float:
        """How many times as fast a pass became."""
        return self.before_ms / self.after_ms

    @property
    def error(self) -> float:
        """The largest difference of both networks' outputs over the largest number of those."""
        return self.measured.error

    @property
    def threads(self) -> int:
        """Threads that programs run on at most."""
        return self._engine.how.threads

    @property
    def weights_bytes(self) -> int:
        """The bytes of weights that programs hold: not those of linear layers, which are read where they lie."""
        return self.measured.weights_bytes

    @property
    def workspace_bytes(self) -> int:
        """The bytes a run of the programs takes for itself."""
        return self.measured.workspace_bytes

    @property
    def moved_bytes(self) -> int:
        """The bytes of activations that operators of programs read and write in a pass, each counted once by each."""
        return self.measured.moved_bytes

    @property
    def apart_bytes(self) -> int:
        """The same if every operator had a pass of its own, as in torch."""
        return self.measured.apart_bytes

    @property
    def parts(self) -> tuple[Part, ...]:
        """The operators, in their order."""
        return self.measured.parts

    @property
    def torch_ms(self) -> float:
        """Milliseconds of a pass that torch's own operators take, those there are no kernels for."""
        return sum(part.ms for part in self.parts if part.why)

    def json(self) -> str:
        """The report as a JSON object: all that is measured, parts as objects, the speed-up, and `last`."""
        return json.dumps({**asdict(self.measured), "speedup": self.speedup, "last": self.last}, indent=2)

    def figure(self, path: str | os.PathLike[str]) -> Path:
        """Draw what each part takes as bars, the longest first, into the file `path` (.png, .pdf or .svg); returns it.

        Raises ValueError for files of other formats, ImportError where matplotlib is not installed (the extra `plot`),
        and OSError where the file cannot be written.
        """
        chart.check(Path(path))  # before anything is measured
        bars = [chart.Bar(p.name, p.ms, p.operator, "torch's own" if p.why else "programs") for p in self.parts]
        return chart.draw(Path(path), self._total, bars)

    @property
    def _total(self) -> str:
        times = f"{self.before_ms:.2f} ms before, {self.after_ms:.2f} ms after: {self.speedup:.2f} times as fast"
        return f"{times} on {self.threads} thread{'s' * (self.threads > 1)}"

    def __str__(self) -> str:
        name, operator = (max(len(getattr(part, what)) for part in self.parts) for what in ("name", "operator"))
        lines = [f"{p.name:{name}}  {p.operator:{operator}}  {p.ms:9.3f} ms  {p.why}".rstrip() for p in self.parts]
        memory = f"{self.weights_bytes / 1e6:.0f} MB of weights, {self.workspace_bytes / 1e6:.0f} MB of workspace"
        memory += f", {self.moved_bytes / 1e6:.0f} of {self.apart_bytes / 1e6:.0f} MB of activations moved"
        return "\n".join([*lines, f"{self._total}; error {self.error:.1e}; {memory}"])


def measured(fast: nn.Module, net: nn.Module, engine: Engine) -> Measured:
    """Measures `fast`, whose programs `engine` has, beside the network `net` it was made of, called as the first time.

    Raises ValueError where there is no program for that call any more.
    """
    call = engine.example
    with FOLLOWING, torch.inference_mode(), evaluating(net), autocast(call.cast):
        program = engine.program(fast, call)
        if isinstance(program, str):
            raise ValueError(f"report: there is no program now: {program}")
        expected = net(*deepcopy(call.args), **call.kwargs)
        error = _difference(pytree.tree_leaves(expected), pytree.tree_leaves(program.run(call.leaves)))

        def after() -> Any:
            engine.program(fast, call)  # looks at the weights, as every pass does
            return program.run(call.leaves)

        times = interleaved({"before": lambda: net(*call.args), "after": after}, rounds=(_ROUNDS, 20))
        took = program.took(call.leaves, _ROUNDS)
    parts = tuple(Part(each.name, each.operator, 1e3 * each.seconds, each.why) for each in took)
    sizes = program.weights_bytes, program.workspace_bytes, *program.moved
    return Measured(1e3 * times["before"], 1e3 * times["after"], error, engine.how.threads, *sizes, parts)


def _difference(expected: list[Any], found: list[Any]) -> float:
    """The largest difference of floating-point numbers over the largest number, of all tensors that come out."""
    both = zip(expected, found, strict=True)
    pairs = [(e.double(), f) for e, f in both if isinstance(e, Tensor) and e.is_floating_point()]
    if not pairs:
        return 0.0
    return max(float((f - e).abs().max() / e.abs().max().clamp_min(1e-30)) for e, f in pairs)
