"""The second door: a whole network as one program, run in this process in place of its layers.

The network keeps its class, parameters, keys, modes and hooks: `accelerate` gives a copy whose class is a subclass with
another `forward`. That one runs the program where it computes the same, and the network's own `forward` elsewhere.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import copied, evaluating
from lrw.timing import interleaved
from lrw.unchanged import Mark, held_by, is_plain
from lrw_kernels.network.described import described

if TYPE_CHECKING:
    from lrw.programs import NetworkProgram

PROGRAM = "the program"
_ROUNDS = 5  # of the times in a report


@dataclass(frozen=True)
class Part:
    """One operator of the program: its name in the network, what computes it, milliseconds of one pass."""

    name: str
    operator: str
    ms: float


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

    def __str__(self) -> str:
        name, operator = (max(len(getattr(part, what)) for part in self.parts) for what in ("name", "operator"))
        lines = [f"{p.name:{name}}  {p.operator:{operator}}  {p.ms:9.3f} ms" for p in self.parts]
        total = f"{self.before_ms:.2f} ms before, {self.after_ms:.2f} ms after: {self.speedup:.2f} times as fast"
        memory = f"{self.weights_bytes / 1e6:.0f} MB of weights, {self.workspace_bytes / 1e6:.0f} MB of workspace"
        return "\n".join([*lines, f"{total} on {self.threads} threads; error {self.error:.1e}; {memory}"])


def accelerate(net: nn.Module, example_input: Tensor, *, threads: int | None = None) -> nn.Module:
    """A copy of `net` that computes the same function faster for inputs like `example_input`; `.report` says how.

    example_input [N, C, D, H, W] or [N, C], float32 on the CPU. In eval mode, where no gradient is wanted, inputs of
    its size run as one program of vector kernels, on up to `threads` threads (default: torch's number, now and at most
    later); everything else runs as in `net`, and `report.last` says why. The copy has the same class, keys and hooks on
    the whole; it follows changes of its weights, by building the program anew. `revert` gives the plain network back.
    Raises ValueError, with nothing changed, for arguments that are not accepted and for operators there is no kernel
    for, each with its place in the network.
    """
    if isinstance(net, _Accelerated):
        net = revert(net)
    count = torch.get_num_threads() if threads is None else threads
    checks.check_count(count, "threads")
    program = _built(net, example_input, count)
    fast = copied(net)
    fast.__dict__["_own_forward"] = fast.__dict__.pop("forward", None)  # one that was set on the instance
    fast.__class__ = _subclass(type(net))
    state = _State(example_input.detach().clone(), count)
    state.adopt(program, fast)
    fast.__dict__["_state"], fast.__dict__["report"] = state, _reported(net, program, example_input, count)
    return fast


def revert(net: nn.Module) -> nn.Module:
    """The plain network of what `accelerate` gave, a copy with the weights it has now; any other network as it is."""
    if not isinstance(net, _Accelerated):
        return net
    plain = copied(net)
    plain.__class__ = type(net)._plain
    own = plain.__dict__.pop("_own_forward")
    for name in ("_state", "report"):
        del plain.__dict__[name]
    if own is not None:
        plain.__dict__["forward"] = own
    return plain


class _State:
    """The program of an accelerated network, and what the network was when it was built."""

    def __init__(self, example_input: Tensor, threads: int) -> None:
        self.example_input, self.threads = example_input, threads
        self.program: NetworkProgram | None = None

    def adopt(self, program: "NetworkProgram", net: nn.Module) -> None:
        """`program` is that of `net` as it is now."""
        self.program, self._modules = program, list(net.modules())
        self._entries = [(d, len(d), list(d.items())) for m in self._modules for d in _holders(m)]
        tensors = [t for m in self._modules for d in (m._parameters, m._buffers) for t in d.values() if t is not None]
        self._tensors, self._marks = tensors, [(t, Mark(t), held_by(t)) for t in tensors]

    def refusal(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Why the network's own forward computes a pass; None where the program does."""
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, Tensor) or not is_plain(x):
            return "the arguments are not one plain tensor"
        form = (x.shape, x.dtype, x.device.type)
        if form != (self.example_input.shape, torch.float32, "cpu") or x.layout != torch.strided:
            return f"the input is {_form(x)}, the program's is {_form(self.example_input)}"
        if any(m.training for m in self._modules):
            return "a module is in training mode"
        if torch.is_grad_enabled() and (x.requires_grad or any(t.requires_grad for t in self._tensors)):
            return "gradients are wanted; torch.no_grad() or torch.inference_mode() say that they are not"
        if torch.is_autocast_enabled("cpu"):
            return "autocast is on"
        if any(m._forward_hooks or m._forward_pre_hooks for m in self._modules[1:]):
            return "a module inside has hooks"
        return None

    def is_of(self, net: nn.Module) -> bool:
        """Whether modules, weights and buffers are what they were."""
        for holder, size, items in self._entries:
            if len(holder) != size or any(holder.get(key) is not value for key, value in items):
                return False
        return all(mark.fits(t) and mark.still_holds(t, held) for t, mark, held in self._marks)

    def __getstate__(self) -> dict[str, Any]:
        """Without the program: a copy builds its own when it is first asked."""
        return {"example_input": self.example_input, "threads": self.threads, "program": None}


class _Accelerated(nn.Module):
    """What `accelerate` puts in front of a network's class."""

    _plain: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The network's own, or its program."""
        if torch.compiler.is_compiling():
            return self._slow(*args, **kwargs)
        state, report = self.__dict__["_state"], self.__dict__["report"]
        reason = state.refusal(args, kwargs) if state.program is not None else None
        if reason is None and (state.program is None or not state.is_of(self)):
            reason = self._renew(state) or state.refusal(args, kwargs)
        report.last = reason or PROGRAM
        return state.program.run(args[0]) if reason is None else self._slow(*args, **kwargs)

    def _slow(self, *args: Any, **kwargs: Any) -> Any:
        own = self.__dict__["_own_forward"]
        return own(*args, **kwargs) if own is not None else super().forward(*args, **kwargs)

    def _renew(self, state: _State) -> str | None:
        """Build the program of the network as it is now; why that is not possible."""
        try:
            state.adopt(_built(revert(self), state.example_input, state.threads), self)
        except ValueError as error:
            return str(error)
        return None

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self._plain,), self.__getstate__()


def _restored(plain: type[nn.Module]) -> nn.Module:
    made = _subclass(plain).__new__(_subclass(plain))
    nn.Module.__init__(made)
    return made


_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _subclass(plain: type[nn.Module]) -> type[nn.Module]:
    """The class of accelerated networks whose own class is `plain`: one for all of them."""
    if plain not in _SUBCLASSES:
        said = {"_plain": plain, "__module__": plain.__module__, "__doc__": plain.__doc__}
        _SUBCLASSES[plain] = type(plain.__name__, (_Accelerated, plain), said)
    return _SUBCLASSES[plain]


def _built(net: nn.Module, example_input: Tensor, threads: int) -> "NetworkProgram":
    from lrw.programs import NetworkProgram  # brings LLVM along

    return NetworkProgram(net, example_input, threads)


def _holders(module: nn.Module) -> tuple[dict[str, Any], ...]:
    return module._modules, module._parameters, module._buffers


def _form(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"


def _reported(net: nn.Module, program: "NetworkProgram", x: Tensor, threads: int) -> AccelerationReport:
    with torch.inference_mode(), evaluating(net):
        times = interleaved({"before": lambda: net(x), "after": lambda: program.run(x)}, rounds=(_ROUNDS, 20))
        of_parts = program.seconds(x, _ROUNDS)
        expected = program.output
        error = float((program.run(x) - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    names = [described(layer.node) for layer in program.program.layers]
    parts = [Part(d["name"], _operator(d), 1e3 * s) for d, s in zip(names, of_parts, strict=True)]
    sizes = len(program.program.weights), program.program.workspace_bytes
    return AccelerationReport(1e3 * times["before"], 1e3 * times["after"], error, threads, *sizes, tuple(parts))


def _operator(entry: dict[str, Any]) -> str:
    return f"{entry['operator']} {entry['tile']}" if "tile" in entry else str(entry["operator"])
