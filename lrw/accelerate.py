"""The second door: a whole network as programs, run in this process in place of its layers.

The network keeps its class, parameters, keys, modes and hooks: `accelerate` gives a copy whose class is a subclass with
another `forward`. That one runs the program where it computes the same, and the network's own `forward` elsewhere.
"""

from collections import OrderedDict
from collections.abc import Callable
from copy import deepcopy
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from lrw import checks
from lrw.engine import PROGRAM, Call, Engine, How
from lrw.layers import FUNCTIONS, copied, evaluating, set_single_mode
from lrw.reports import AccelerationReport, Part, measured
from lrw.trace.captured import FOLLOWING
from lrw.typed import typed

if TYPE_CHECKING:
    from lrw.programs import NetworkProgram

__all__ = ["AccelerationReport", "Part", "accelerate", "revert"]


@typed
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
    building the program anew (seconds), or at once where numbers are written to weights that linear layers alone read:
    programs have no copies of these; not changes inside objects of other kinds that are set on them. While a program
    is built, calls of accelerated networks in other threads wait, and modules of other networks may not be called:
    torch.export, which follows the network, watches those of the whole process. NaN and infinity spread as in
    `winograd_conv3d`. `revert` gives the plain network back. Raises ValueError, with nothing changed, for arguments
    that are not accepted, and for a network that torch.export cannot follow or none of which there are kernels for,
    with each operator and its place.
    """
    checks.check_network(net)
    net = revert(net)
    count = torch.get_num_threads() if threads is None else threads
    checks.check_count(count, "threads")
    how = How(count, checks.check_rtol(rtol), measure)
    call = _example(example_input)
    if hasattr(type(net), "report") or _holds(net, "report"):
        raise ValueError("net: has a part called 'report'; accepted are networks where that name is free")
    with FOLLOWING, torch.inference_mode(False):
        engine = Engine(how, call, _hookless, _PRIVATE)
        fast = _dressed(copied(net), engine)
        set_single_mode(fast)
        engine.build(fast, call)
    with torch.no_grad(), evaluating(plain := _hookless(fast)):
        engine.last = engine.refusal(plain, call) or PROGRAM
    return fast


@typed
def revert(net: nn.Module) -> nn.Module:
    """The plain network of what `accelerate` gave, a copy with the weights it has now; any other network as it is.

    Raises ValueError for one whose class was changed since, as parametrizations of the whole do.
    """
    if not isinstance(net, _Accelerated):
        return net
    if type(net) not in _SUBCLASSES.values():
        raise ValueError(f"net: its class became {type(net).__name__}; accepted is the one that accelerate gave it")
    with FOLLOWING:
        return _plain(copied(net))


def _example(given: Any) -> Call:
    """The call `example_input` stands for. Raises ValueError for what none is."""
    call = Call.of(given if isinstance(given, tuple) else (given,), {})
    if not call.tensors:
        raise ValueError(f"example_input: a {type(given).__name__}; accepted is a tensor, or a tuple of arguments")
    for x in call.tensors:
        if x.numel() == 0 or x.device.type != "cpu" or x.layout != torch.strided:
            raise ValueError(f"example_input: {_described(x)}; accepted are tensors on the CPU that are not empty")
    return call


_called: Callable[..., Any] = nn.Module.__call__  # another one while torch.export follows a network


class _Accelerated(nn.Module):
    """The class that `accelerate` puts in front of a network's own."""

    _lrw_plain: type[nn.Module]

    @property
    def report(self) -> AccelerationReport:
        """What was made of the network."""
        engine: Engine = self.__dict__["_lrw"]
        return AccelerationReport(engine, lambda: measured(self, _hookless(self), engine))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As every module is called; where another thread has torch.export follow a network, once it did."""
        if torch.compiler.is_dynamo_compiling():
            return super().__call__(*args, **kwargs)
        FOLLOWING.wait()
        return (super().__call__ if torch.compiler.is_compiling() else partial(_called, self))(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program where it computes the same, else the network's own forward; the report says which."""
        engine: Engine | None = self.__dict__.get("_lrw")
        if engine is None or torch.compiler.is_dynamo_compiling():  # a part of one, such as a slice; traced as it is
            return super().forward(*args, **kwargs)
        call = Call.of(args, kwargs)
        FOLLOWING.wait()
        if torch.compiler.is_compiling():
            program: NetworkProgram | str = "torch.export follows the network, here or in another thread"
        else:
            program = engine.answer(self, call)
        engine.last = program if isinstance(program, str) else PROGRAM
        if not isinstance(program, str):
            return program.run(call.leaves)
        own = self.__dict__["_lrw_forward"]  # one that was set on the instance
        with FOLLOWING.passing():
            return own(*args, **kwargs) if own is not None else super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _restored, (self._lrw_plain,), self.__getstate__()


class _AcceleratedGraph(_Accelerated):
    """The same for a network of torch.fx, which has a class of its own for its code, and a copy another."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        return _dressed(*deepcopy(self._taken_apart(), memo))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _dressed, self._taken_apart()

    def _taken_apart(self) -> tuple[nn.Module, Engine]:
        """The plain network without functions set on it, which its copies do not have, and its engine."""
        shell = _shell(self)
        for name in [name for name, value in vars(shell).items() if isinstance(value, FUNCTIONS)]:
            del shell.__dict__[name]
        return shell, vars(self)["_lrw"]

    def recompile(self) -> Any:
        """Make code of the graph, as torch.fx does; the program is built anew."""
        shell: Any = _shell(self)
        code = shell.recompile()
        vars(self).update({name: value for name, value in vars(shell).items() if name not in _MOVED})
        return code


_MOVED = ("forward", "report")  # what was set on the network itself under names that are needed here
_PRIVATE = ("_lrw", "_lrw_report", "report")
_SUBCLASSES: dict[type[nn.Module], type[nn.Module]] = {}


def _dressed(net: nn.Module, engine: Engine) -> nn.Module:
    """The plain network `net` itself as an accelerated one."""
    kind = _subclass(type(net))
    net.__dict__["_lrw"] = engine
    for name in _MOVED:
        net.__dict__[f"_lrw_{name}"] = net.__dict__.pop(name, None)
    net.__class__ = kind
    return net


def _plain(net: nn.Module) -> nn.Module:
    """The accelerated network `net` itself as the plain one it is."""
    net.__dict__.pop("_lrw")
    net.__dict__.pop("report", None)
    net.__class__ = type(net)._lrw_plain  # type: ignore[attr-defined]
    moved = {name: net.__dict__.pop(f"_lrw_{name}") for name in _MOVED}
    net.__dict__.update({name: value for name, value in moved.items() if value is not None})
    return net


def _subclass(plain: type[nn.Module]) -> type[nn.Module]:
    """The class of accelerated networks whose own class is `plain`: one for all of them."""
    if plain not in _SUBCLASSES:
        front = _AcceleratedGraph if issubclass(plain, fx.GraphModule) else _Accelerated

        @wraps(plain.forward)  # which has the names of the arguments
        def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
            return front.forward(self, *args, **kwargs)

        said = {"_lrw_plain": plain, "__module__": plain.__module__, "__doc__": plain.__doc__, "forward": forward}
        said["__jit_unused_properties__"] = [*getattr(plain, "__jit_unused_properties__", ()), "report"]
        try:
            _SUBCLASSES[plain] = type(plain.__name__, (front, plain), said)
        except TypeError as error:
            raise ValueError(f"net: its class {plain.__name__} can have no subclass: {error}") from error
    return _SUBCLASSES[plain]


def _restored(plain: type[nn.Module]) -> nn.Module:
    made = _subclass(plain).__new__(_subclass(plain))
    nn.Module.__init__(made)
    return made


def _shell(net: nn.Module) -> nn.Module:
    """The plain network of an accelerated one, of the same parts."""
    plain = object.__new__(type(net))
    plain.__dict__.update(vars(net))
    return _plain(plain)


def _hookless(net: nn.Module) -> nn.Module:
    """The same without hooks on the whole: those run around it."""
    if not isinstance(net, _Accelerated):
        return net
    plain = _shell(net)
    for name in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        plain.__dict__[name] = OrderedDict()
    return plain


def _holds(net: nn.Module, name: str) -> bool:
    return any(name in held for held in (net._modules, net._parameters, net._buffers))


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"
