"""The second door: a whole network as programs, run in this process in place of its layers.

The network keeps its class, parameters, keys, modes and hooks: `accelerate` gives a copy whose class is a subclass with
another `forward`. That one runs the program where it computes the same, and the network's own `forward` elsewhere.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.engine import PROGRAM, Call, Engine, How
from lrw.layers import copied, evaluating
from lrw.reports import AccelerationReport, Part, measured

__all__ = ["AccelerationReport", "Part", "accelerate", "revert"]


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
    is built no other thread may call modules: torch.export, which follows the network, watches those of the whole
    process. NaN and infinity spread as in `winograd_conv3d`. `revert` gives the plain network back. Raises ValueError,
    with nothing changed, for arguments that are not accepted, and for a network that torch.export cannot follow or
    none of which there are kernels for, with each operator and its place.
    """
    checks.check_network(net)
    net = revert(net)
    count = torch.get_num_threads() if threads is None else threads
    checks.check_count(count, "threads")
    how = How(count, checks.check_rtol(rtol), measure)
    call = _example(example_input)
    if hasattr(type(net), "report") or _holds(net, "report"):
        raise ValueError("net: has a part called 'report'; accepted are networks where that name is free")
    with torch.inference_mode(False):
        fast = copied(net)
        engine = fast.__dict__["_lrw"] = Engine(how, call, _hookless, _PRIVATE)
        for name in _MOVED:
            fast.__dict__[f"_lrw_{name}"] = fast.__dict__.pop(name, None)
        fast.__class__ = _subclass(type(net))
        engine.build(fast, call)
    with torch.no_grad(), evaluating(plain := _hookless(fast)):
        engine.last = engine.refusal(plain, call) or PROGRAM
    return fast


def revert(net: nn.Module) -> nn.Module:
    """The plain network of what `accelerate` gave, a copy with the weights it has now; any other network as it is."""
    return _plain(copied(net)) if isinstance(net, _Accelerated) else net


def _example(given: Any) -> Call:
    """The call `example_input` stands for. Raises ValueError for what none is."""
    call = Call.of(given if isinstance(given, tuple) else (given,), {})
    if not call.tensors:
        raise ValueError(f"example_input: a {type(given).__name__}; accepted is a tensor, or a tuple of arguments")
    for x in call.tensors:
        if x.numel() == 0 or x.device.type != "cpu" or x.layout != torch.strided:
            raise ValueError(f"example_input: {_described(x)}; accepted are tensors on the CPU that are not empty")
    return call


class _Accelerated(nn.Module):
    """The class that `accelerate` puts in front of a network's own."""

    _lrw_plain: type[nn.Module]

    @property
    def report(self) -> AccelerationReport:
        """What was made of the network."""
        engine: Engine = self.__dict__["_lrw"]
        return AccelerationReport(engine, lambda: measured(self, _hookless(self), engine))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program where it computes the same, else the network's own forward; the report says which."""
        engine: Engine | None = self.__dict__.get("_lrw")
        if engine is None or torch.compiler.is_dynamo_compiling():  # a part of one, such as a slice; traced as it is
            return super().forward(*args, **kwargs)
        call = Call.of(args, kwargs)
        if torch.compiler.is_compiling():
            reason: str | None = "torch.export follows the network, here or in another thread"
        else:
            reason = engine.refusal(self, call)
        program = engine.program(self, call) if reason is None else reason
        engine.last = program if isinstance(program, str) else PROGRAM
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


def _described(x: Tensor) -> str:
    return f"{str(x.dtype).removeprefix('torch.')} {list(x.shape)} on {x.device.type}"
