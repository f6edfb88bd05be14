"""The second door: a whole network as programs, run in this process in place of its layers.

The network keeps its class, parameters, keys, modes and hooks: `accelerate` gives a copy whose class is a subclass with
another `forward`. That one runs the program where it computes the same, and the network's own `forward` elsewhere.
"""

import json
from collections import OrderedDict
from collections.abc import Hashable
from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from lrw import checks
from lrw.layers import copied, evaluating
from lrw.snapshot import Snapshot
from lrw.timing import interleaved
from lrw.trace import captured
from lrw.unchanged import is_plain

if TYPE_CHECKING:
    from lrw.programs import NetworkProgram

PROGRAM = "the program"
MOST_FORMS = 8  # of calls that one network has programs for; one too many takes the place of the oldest
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


class _How(NamedTuple):
    """For so many threads at most, with tiles whose error bound is within `rtol`, timed or not."""

    threads: int
    rtol: float
    measure: bool


class _Call(NamedTuple):
    """What a network is called with: the arguments, the tensors and numbers in them in order, and their form, which
    all calls have that one program serves."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaves: list[Any]
    form: Hashable

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "_Call":
        """The call with these arguments."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        return _Call(args, kwargs, leaves, (structure, tuple(map(_kind, leaves))))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]


def accelerate(
    net: nn.Module, example_input: Any, *, rtol: float = 1e-4, measure: bool = True, threads: int | None = None
) -> nn.Module:
    """A copy of `net` that computes the same function faster for inputs like `example_input`; `.report` says how.

    example_input: the tensor `net` is called with, such as [N, C, D, H, W] float32 on the CPU, or a tuple of all its
    arguments, which may be tuples, lists and dictionaries of tensors and numbers. In eval mode, where no gradient is
    wanted, calls run as programs of vector kernels, on up to `threads` threads (default: torch's number, now and at
    most later), and what there are no kernels for in torch between them; everything else runs as in `net`, and
    `report.last` says why. Arguments of another form (sizes, numbers) get a program of their own at the first call, for
    the last few forms that came. Convolutions are computed directly or with a tile whose error bound (largest error
    over largest output of the layer) is within `rtol`: with `measure` the fastest of a few that are timed here, once
    for each size of layer and machine, without it and for other forms as formulas say. The copy has the same class,
    keys and hooks on the whole. It follows changes of its weights, buffers, modules and what is set on them, by
    building the program anew (seconds); not changes inside objects of other kinds that are set on them. While a program
    is built no other thread may call modules: torch.export, which follows the network, watches those of the whole
    process. NaN and infinity spread as in `winograd_conv3d`. `revert` gives the plain network back. Raises ValueError,
    with nothing changed, for arguments that are not accepted, and for a network that torch.export cannot follow or
    none of which there are kernels for, with each operator and its place.
    """
    checks.check_network(net)
    net = revert(net)
    count = torch.get_num_threads() if threads is None else threads
    checks.check_count(count, "threads")
    how = _How(count, checks.check_rtol(rtol), measure)
    call = _example(example_input)
    if hasattr(type(net), "report") or _holds(net, "report"):
        raise ValueError("net: has a part called 'report'; accepted are networks where that name is free")
    with torch.inference_mode(False):
        fast = copied(net)
        engine = fast.__dict__["_lrw"] = _Engine(how)
        for name in _MOVED:
            fast.__dict__[f"_lrw_{name}"] = fast.__dict__.pop(name, None)
        fast.__class__ = _subclass(type(net))
        snapshot, program = engine.build(fast, call)
    fast.__dict__["report"] = _reported(fast, snapshot, program, call)
    return fast


def revert(net: nn.Module) -> nn.Module:
    """The plain network of what `accelerate` gave, a copy with the weights it has now; any other network as it is."""
    return _plain(copied(net)) if isinstance(net, _Accelerated) else net


def _example(given: Any) -> _Call:
    """The call `example_input` stands for. Raises ValueError for what none is."""
    call = _Call.of(given if isinstance(given, tuple) else (given,), {})
    if not call.tensors:
        raise ValueError(f"example_input: a {type(given).__name__}; accepted is a tensor, or a tuple of arguments")
    for x in call.tensors:
        if x.numel() == 0 or x.device.type != "cpu" or x.layout != torch.strided:
            raise ValueError(f"example_input: {_described(x)}; accepted are tensors on the CPU that are not empty")
    return call


class _Engine:
    """Kept beside an accelerated network: how to build its programs, and those that are built."""

    def __init__(self, how: _How) -> None:
        self.how = how
        self.first: Hashable = None  # the form of the first call, the example's, for which tiles are timed
        # By form of call: the network it was built of, and the program, or why there is none. An entry is set as one:
        # others look meanwhile.
        self.built: dict[Hashable, tuple[Snapshot, NetworkProgram | None, str | None]] = {}

    def refusal(self, net: nn.Module, call: _Call) -> str | None:
        """Why the network's own forward computes a pass, whatever program there is; None where one could."""
        tensors = call.tensors
        if not tensors or not is_plain(*tensors) or forward_ad._current_level >= 0:
            return "the arguments are not plain tensors"
        if any(x.device.type != "cpu" or x.layout != torch.strided or x.numel() == 0 for x in tensors):
            return "an argument is empty or not on the CPU"
        if any(kind is None for kind in map(_kind, call.leaves)):
            return "the arguments hold more than tensors, numbers and texts"
        modules = list(net.modules())
        if any(m.training for m in modules):
            return "a module is in training mode"
        wanted = any(x.requires_grad for x in tensors) or any(p.requires_grad for p in net.parameters())
        if torch.is_grad_enabled() and wanted:
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

    def program(self, net: nn.Module, call: _Call) -> "NetworkProgram | str":
        """The program of `net` as it is now, built if need be; or why there is none."""
        built = self.built.get(call.form)
        if built is None or not built[0].fits(net):
            with captured.FOLLOWING:
                built = self.built.get(call.form)  # by another thread meanwhile
                if built is None or not built[0].fits(net):
                    try:
                        built = *self.build(net, call), None
                    except ValueError as error:
                        built = self._keep(call, Snapshot(net, _PRIVATE), None, str(error))
        _, program, reason = built
        return program if program is not None else str(reason)

    def build(self, net: nn.Module, call: _Call) -> "tuple[Snapshot, NetworkProgram]":
        """A program of `net` as it is. Raises ValueError as `accelerate` does, and for a network that sets other values
        on its modules with every call; the first one may."""
        self.first = call.form if self.first is None else self.first
        how = self.how._replace(measure=self.how.measure and call.form == self.first)
        for _ in range(2):
            before, program = Snapshot(net, _PRIVATE), _built(net, call, how)
            with torch.inference_mode(False), torch.no_grad(), evaluating(plain := _hookless(net)):
                plain(*deepcopy(call.args), **deepcopy(call.kwargs))
            changed = before.changed(net)
            if changed is None:
                self._keep(call, before, program, None)
                return before, program
        raise ValueError(f"net: sets {changed} with every call; accepted is a function of its input")

    def _keep(
        self, call: _Call, snapshot: Snapshot, program: "NetworkProgram | None", reason: str | None
    ) -> "tuple[Snapshot, NetworkProgram | None, str | None]":
        if len(self.built) >= MOST_FORMS and call.form not in self.built:
            self.built.pop(next(iter([*self.built])), None)
        kept = self.built[call.form] = snapshot, program, reason
        return kept

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy or pickle, without the programs: it builds its own when it is first asked."""
        return {"how": self.how, "first": None, "built": {}}


class _Accelerated(nn.Module):
    """The class that `accelerate` puts in front of a network's own."""

    _lrw_plain: type[nn.Module]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program where it computes the same, else the network's own forward; the report says which."""
        engine: _Engine | None = self.__dict__.get("_lrw")
        if engine is None or torch.compiler.is_dynamo_compiling():  # a part of one, such as a slice; traced as it is
            return super().forward(*args, **kwargs)
        call = _Call.of(args, kwargs)
        if torch.compiler.is_compiling():
            reason: str | None = "torch.export follows the network, here or in another thread"
        else:
            reason = engine.refusal(self, call)
        program = engine.program(self, call) if reason is None else reason
        self.__dict__["report"].last = program if isinstance(program, str) else PROGRAM
        if not isinstance(program, str):
            return program.run(call.leaves)
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


def _built(net: nn.Module, call: _Call, how: _How) -> "NetworkProgram":
    from lrw.programs import NetworkProgram  # these bring LLVM along
    from lrw_kernels.choice.convolution import prior
    from lrw_kernels.choice.measured import Measured

    choose = Measured(how.threads, how.rtol) if how.measure else prior(how.rtol)
    return NetworkProgram(_hookless(net), call.args, call.kwargs, how.threads, choose)


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


def _kind(leaf: Any) -> Hashable:
    """What calls of one form have in common of an argument; None for what programs do not take."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return (type(leaf), leaf) if leaf is None or isinstance(leaf, int | float | str) else None


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"


def _reported(fast: nn.Module, snapshot: Snapshot, program: "NetworkProgram", call: _Call) -> AccelerationReport:
    net, engine = _hookless(fast), fast.__dict__["_lrw"]

    def after() -> Any:
        snapshot.fits(fast)  # looks at the weights, as every pass does
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
