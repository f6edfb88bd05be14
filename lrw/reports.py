"""What is said of an accelerated network: its parts, what each takes, and how far it is from the original."""

import json
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.engine import PROGRAM, Call, Engine
from lrw.layers import evaluating
from lrw.timing import interleaved

_ROUNDS = 5  # of the times in a report


@dataclass(frozen=True)
class Part:
    """One operator: its name in the network, what computes it, milliseconds of one pass, why where that is torch."""

    name: str
    operator: str
    ms: float
    why: str = ""


@dataclass
class AccelerationReport:
    """What `accelerate` made of a network, for the example input: milliseconds of a pass before and after (medians of a
    few, on `threads` threads), the largest difference over the largest output, and the parts of the program.

    `last` says what computed the latest pass: "the program", or why the network's own forward did.
    """

    before_ms: float
    after_ms: float
    error: float
    threads: int
    weights_bytes: int
    workspace_bytes: int
    parts: tuple[Part, ...]
    last: str = PROGRAM

    @property
    def speedup(self) -> float:
        """How many times as fast a pass became."""
        return self.before_ms / self.after_ms

    @property
    def torch_ms(self) -> float:
        """Milliseconds of a pass that torch's own operators take, those there are no kernels for."""
        return sum(part.ms for part in self.parts if part.why)

    def json(self) -> str:
        """The report as a JSON object with the fields of this class, parts as objects, and the speed-up."""
        return json.dumps({**asdict(self), "speedup": self.speedup}, indent=2)

    def __str__(self) -> str:
        name, operator = (max(len(getattr(part, what)) for part in self.parts) for what in ("name", "operator"))
        lines = [f"{p.name:{name}}  {p.operator:{operator}}  {p.ms:9.3f} ms  {p.why}".rstrip() for p in self.parts]
        total = f"{self.before_ms:.2f} ms before, {self.after_ms:.2f} ms after: {self.speedup:.2f} times as fast"
        memory = f"{self.weights_bytes / 1e6:.0f} MB of weights, {self.workspace_bytes / 1e6:.0f} MB of workspace"
        return "\n".join([*lines, f"{total} on {self.threads} threads; error {self.error:.1e}; {memory}"])


def reported(fast: nn.Module, net: nn.Module, engine: Engine, call: Call) -> AccelerationReport:
    """The report of `fast`, whose engine is built for `call`, beside the network `net` it was made of."""
    built = engine.built[call.form]
    program = built.program
    assert program is not None

    def after() -> Any:
        built.snapshot.fits(fast)  # looks at the weights, as every pass does
        return program.run(call.leaves)

    with torch.inference_mode(), evaluating(net):
        expected = net(*deepcopy(call.args), **call.kwargs)
        error = _difference(pytree.tree_leaves(expected), pytree.tree_leaves(program.run(call.leaves)))
        times = interleaved({"before": lambda: net(*call.args), "after": after}, rounds=(_ROUNDS, 20))
        took = program.took(call.leaves, _ROUNDS)
        refused = engine.refusal(net, call)
    parts = tuple(Part(each.name, each.operator, 1e3 * each.seconds, each.why) for each in took)
    sizes = program.weights_bytes, program.workspace_bytes
    ms = 1e3 * times["before"], 1e3 * times["after"]
    return AccelerationReport(*ms, error, engine.how.threads, *sizes, parts, refused or PROGRAM)


def _difference(expected: list[Any], found: list[Any]) -> float:
    """The largest difference of floating-point numbers over the largest number, of all tensors that come out."""
    pairs = [(e, f) for e, f in zip(expected, found, strict=True) if isinstance(e, Tensor) and e.is_floating_point()]
    if not pairs:
        return 0.0
    return max(float((f - e).abs().max() / e.abs().max().clamp_min(1e-30)) for e, f in pairs)
