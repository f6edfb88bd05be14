"""The second door: a whole network as one program, run in this process in place of its layers.

The network keeps its class, parameters, keys, modes and hooks: `accelerate` gives a copy whose class is a subclass with
another `forward`. That one runs the program where it computes the same, and the network's own `forward` elsewhere.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from lrw import checks
from lrw.layers import copied, evaluating
from lrw.snapshot import Snapshot
from lrw.timing import interleaved
from lrw.trace import captured
from lrw.unchanged import is_plain
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


class _How(NamedTuple):
    """For so many threads at most, with tiles whose error bound is within `rtol`, timed or not."""

    threads: int
    rtol: float
    measure: bool


def accelerate(
    net: nn.Module, example_input: Tensor, *, rtol: float = 1e-4, measure: bool = True, threads: int | None = None
) -> nn.Module:
    """A copy of `net` that computes the same function faster for inputs like `example_input`; `.report` says how.

    example_input [N, C, D, H, W] or [N, C], float32 on the CPU. In eval mode, where no gradient is wanted, inputs of
    its size run as one program of vector kernels, on up to `threads` threads (default: torch's number, now and at most
    later); everything else runs as in `net`, and `report.last` says why. Convolutions are computed directly or with a
    tile whose error bound (largest error over largest output of the layer) is within `rtol`: with `measure` the fastest
    of a few that are timed here, once for each size of layer and machine, without it as formulas say. The copy has the
    same class, keys and hooks on the whole. It follows changes of its weights, buffers, modules and what is set on
    them, by building the program anew (seconds); not changes inside objects of other kinds that are set on them. While
    a program is built no other thread may call modules: torch.export, which follows the network, watches those of the
    whole process. NaN and infinity spread as in `winograd_conv3d`. `revert` gives the plain network back. Raises
    ValueError, with nothing changed, for arguments that are not accepted and for operators there is no kernel for, each
    with its place in the network.
    """
    checks.check_network(net)
    net = revert(net)
    count = torch.get_num_threads() if threads is None else threads
    checks.check_count(count, "threads")
    how = _How(count, checks.check_rtol(rtol), measure)
    if hasattr(type(net), "report") or _holds(net, "report"):
        raise ValueError("net: has a part called 'report'; accepted are networks where that name is free")
    with torch.inference_mode(False):
        fast = copied(net)
        engine = fast.__dict__["_lrw"] = _Engine(example_input, how)
        for name in _MOVED:
            fast.__dict__[f"_lrw_{name}"] = fast.__dict__.pop(name, None)
        fast.__class__ = _subclass(type(net))
        snapshot, program = engine.build(fast)
    fast.__dict__["report"] = _reported(fast, snapshot, program, example_input)
    return fast


def revert(net: nn.Module) -> nn.Module:
    """The plain network of what `accelerate` gave, a copy with the weights it has now; any other network as it is."""
    return _plain(copied(net)) if isinstance(net, _Accelerated) else net


class _Engine:
    """Kept beside an accelerated network: how to build its program, and the one that is built."""

    def __init__(self, example_input: Tensor, how: _How) -> None:
        self.example_input, self.how = example_input, how
        # The network it was built of, and the program, or why there is none. Set as one: others look meanwhile.
        self.built: tuple[Snapshot, NetworkProgram | None, str | None] | None = None

    def refusal(self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """Why the network's own forward computes a pass, whatever program there is; None where one could."""
        x = args[0] if len(args) == 1 and not kwargs else None
        if not isinstance(x, Tensor) or not is_plain(x) or forward_ad._current_level >= 0:
            return "the arguments are not one plain tensor"
        form = (x.shape, x.dtype, x.device.type)
        if form != (self.example_input.shape, torch.float32, "cpu") or x.layout != torch.strided:
            return f"the input is {_form(x)}, the program's is {_form(self.example_input)}"
        modules = list(net.modules())
        if any(m.training for m in modules):
            return "a module is in training mode"
        if torch.is_grad_enabled() and (x.requires_grad or any(p.requires_grad for p in net.parameters())):
            return "gradients are wanted; torch.no_grad() or torch.inference_mode() say that they are not"
        if torch.is_autocast_enabled("cpu"):
            return "autocast is on"
        if any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack()):
            return "a mode watches torch's functions"
        if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
            return "all modules have hooks"
        if any(m._forward_hooks or m._forward_pre_hooks for m in modules[1:]):
            return "a module inside has hooks"
        return None

    def program(self, net: nn.Module) -> "NetworkProgram | str":
        """The program of `net` as it is now, built if need be; or why there is none."""
        built = self.built
        if built is None or not built[0].fits(net):
            with captured.FOLLOWING:
                built = self.built  # by another thread meanwhile
                if built is None or not built[0].fits(net):
                    try:
                        built = *self.build(net), None
                    except ValueError as error:
                        built = self.built = Snapshot(net, _PRIVATE), None, str(error)
        _, program, reason = built
        return program if program is not None else str(reason)

    def build(self, net: nn.Module) -> "tuple[Snapshot, NetworkProgram]":
        """A program of `net` as it is. Raises ValueError as `accelerate` does, and for a network that sets other values
        on its modules with every call; the first one may."""
        for _ in range(2):
            before, program = Snapshot(net, _PRIVATE), _built(net, self.example_input, self.how)
            changed = before.changed(net)
            if changed is None:
                self.built = before, program, None
                return before, program
        raise ValueError(f"net: sets {changed} with every call; accepted is a function of its input")

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy or pickle, without the program: it builds its own when it is first asked."""
        return {**vars(self), "built": None}


class _Accelerated(nn.Module):
    """The class that `accelerate` puts in front of a network's own."""

    _lrw_plain: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program where it computes the same, else the network's own forward; the report says which."""
        engine: _Engine | None = self.__dict__.get("_lrw")
        if engine is None or torch.compiler.is_dynamo_compiling():  # a part of one, such as a slice; traced as it is
            return super().forward(*args, **kwargs)
        if torch.compiler.is_compiling():
            reason: str | None = "torch.export follows the network, here or in another thread"
        else:
            reason = engine.refusal(self, args, kwargs)
        program = engine.program(self) if reason is None else reason
        self.__dict__["report"].last = program if isinstance(program, str) else PROGRAM
        if not isinstance(program, str):
            return program.run(args[0])
        own = self.__dict__["_lrw_forward"]  # one that was set on the instance
        return own(*args, **kwargs) if own is not None else super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self._lrw_plain,), self.__getstate__()


_MOVED = ("forward", "report")  # what was set on the network itself under names that are needed here
_PRIVATE = ("_lrw", "_lrw_report", "report")
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _subclass(plain: type[nn.Module]) -> type[nn.Module]:
    """The class of accelerated networks whose own class is `plain`: one for all of them."""
    if plain not in _SUBCLASSES:
        said = {"_lrw_plain": plain, "__module__": plain.__module__, "__doc__": plain.__doc__}
        try:
            _SUBCLASSES[plain] = type(plain.__name__, (_Accelerated, plain), said)
        except TypeError as error:
            raise ValueError(f"net: its class {plain.__name__} can have no subclass: {error}") from error
    return _SUBCLASSES[plain]


def _restored(plain: type[nn.Module]) -> nn.Module:
    made = _subclass(plain).__new__(_subclass(plain))
    nn.Module.__init__(made)
    return made


def _plain(net: nn.Module) -> nn.Module:
    """`net` itself as the plain network it is."""
    net.__dict__.pop("_lrw")
    net.__dict__.pop("report", None)
    net.__class__ = type(net)._lrw_plain  # type: ignore[attr-defined]
    moved = {name: net.__dict__.pop(f"_lrw_{name}") for name in _MOVED}
    net.__dict__.update({name: value for name, value in moved.items() if value is not None})
    return net


def _built(net: nn.Module, example_input: Tensor, how: _How) -> "NetworkProgram":
    from lrw.programs import NetworkProgram  # these bring LLVM along
    from lrw_kernels.choice.convolution import prior
    from lrw_kernels.choice.measured import Measured

    choose = Measured(how.threads, how.rtol) if how.measure else prior(how.rtol)
    return NetworkProgram(_hookless(net), example_input, how.threads, choose)


def _hookless(net: nn.Module) -> nn.Module:
    """The plain network of an accelerated one, of the same parts, without hooks on the whole: those run around it."""
    if not isinstance(net, _Accelerated):
        return net
    plain = net.__class__.__new__(net.__class__)
    plain.__dict__.update(vars(net))
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        plain.__dict__[name] = OrderedDict()
    return _plain(plain)


def _holds(net: nn.Module, name: str) -> bool:
    return any(name in held for held in (net._modules, net._parameters, net._buffers))


def _form(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"


def _reported(fast: nn.Module, snapshot: Snapshot, program: "NetworkProgram", x: Tensor) -> AccelerationReport:
    net, engine = _hookless(fast), fast.__dict__["_lrw"]

    def after() -> Tensor:
        snapshot.fits(fast)  # looks at the weights, as every pass does
        return program.run(x)

    with torch.inference_mode(), evaluating(net):
        expected, found = net(x.clone()), program.run(x)
        error = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
        times = interleaved({"before": lambda: net(x), "after": after}, rounds=(_ROUNDS, 20))
        of_parts = program.seconds(x, _ROUNDS)
        refused = engine.refusal(net, (x,), {})
    names = [described(layer.node) for layer in program.program.layers]
    parts = [Part(d["name"], _operator(d), 1e3 * s) for d, s in zip(names, of_parts, strict=True)]
    sizes = program.weights_bytes, program.program.workspace_bytes
    took = 1e3 * times["before"], 1e3 * times["after"]
    return AccelerationReport(*took, error, engine.how.threads, *sizes, tuple(parts), refused or PROGRAM)


def _operator(entry: dict[str, Any]) -> str:
    return f"{entry['operator']} {entry['tile']}" if "tile" in entry else str(entry["operator"])
