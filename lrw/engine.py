"""When a network's calls run as programs: which calls one program serves, and whether it still is the network's."""

from collections.abc import Callable, Hashable
from copy import deepcopy
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext

from lrw.activations import autocast
from lrw.layers import evaluating
from lrw.snapshot import ELSEWHERE, Snapshot
from lrw.trace import captured
from lrw.unchanged import is_plain

if TYPE_CHECKING:
    from lrw.programs import NetworkProgram

PROGRAM = "the program"
_TRAINS, _WANTS_GRADIENT = attrgetter("training"), attrgetter("requires_grad")
MOST_FORMS = 8  # of calls that one network has programs for; one too many takes the place of the oldest


class How(NamedTuple):
    """For so many threads at most, with tiles whose error bound is within `rtol`, timed or not."""

    threads: int
    rtol: float
    measure: bool


class Call(NamedTuple):
    """What a network is called with: the arguments, the tensors and numbers in them in order, what autocast casts to on
    the CPU where it is on, and the form of it all, which all calls have that one program serves."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    leaves: list[Any]
    cast: torch.dtype | None
    form: Hashable

    @staticmethod
    def of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Call":
        """The call with these arguments."""
        leaves, structure = pytree.tree_flatten((args, kwargs))
        cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        return Call(args, kwargs, leaves, cast, (structure, tuple(map(_kind, leaves)), cast))

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]


class Built(NamedTuple):
    """A network as it was, and its program, or why there is none."""

    snapshot: Snapshot
    program: "NetworkProgram | None"
    reason: str | None


class Engine:
    """How the programs of a network are built, and those that are. `plain` gives the network itself where what is
    called is a shell around it, whose attributes called `private` are not the network's. Tiles are timed for calls like
    `example`."""

    def __init__(
        self, how: How, example: Call, plain: Callable[[nn.Module], nn.Module], private: tuple[str, ...] = ()
    ) -> None:
        self.how, self.example, self._plain, self._private = how, example, plain, private
        self.built: dict[Hashable, Built] = {}  # by form of call
        self.last = PROGRAM  # what computed the latest pass, or why the network itself did
        self.measured: Any = None  # for a report, once it was asked for

    def answer(self, net: nn.Module, call: Call) -> "NetworkProgram | str":
        """The program that computes a pass, built if need be; or why the network's own forward does."""
        built = self.built.get(call.form)
        if built is None or not built.snapshot.same(net):
            return self.refusal(net, call) or self.program(net, call)
        reason = self.refusal(net, call, built.snapshot)
        if reason is None and built.snapshot.holds():
            return built.program or str(built.reason)
        return reason or self.program(net, call)

    def refusal(self, net: nn.Module, call: Call, known: Snapshot | None = None) -> str | None:
        """Why the network's own forward computes a pass, whatever program there is; None where one could. `known` is
        the same network, whose parts are at hand."""
        tensors = call.tensors
        if not tensors or not is_plain(*tensors) or forward_ad._current_level >= 0:
            return "the arguments are not plain tensors"
        if any(x.device.type != "cpu" or x.layout != torch.strided or x.numel() == 0 for x in tensors):
            return "an argument is empty or not on the CPU"
        if any(_kind(leaf) is None for leaf in call.leaves):
            return "the arguments hold more than tensors, numbers and texts"
        modules = [*net.modules()] if known is None else [net, *known.inner]
        if any(map(_TRAINS, modules)):
            return "a module is in training mode"
        parameters = [*net.parameters()] if known is None else known.parameters
        if Tensor in map(type, parameters):
            return "tensors stand for parameters, as torch.func.functional_call puts them there"
        if torch.is_grad_enabled() and any(map(_WANTS_GRADIENT, (*tensors, *parameters))):
            return "gradients are wanted; torch.no_grad() or torch.inference_mode() say that they are not"
        if any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack()):
            return "a mode watches torch's functions"
        if hooks._global_forward_hooks or hooks._global_forward_pre_hooks:
            return "all modules have hooks"
        if any(m._forward_hooks or m._forward_pre_hooks for m in modules[1:]):
            return "a module inside has hooks"
        return None

    def program(self, net: nn.Module, call: Call) -> "NetworkProgram | str":
        """The program of `net` as it is now, built if need be; or why there is none."""
        built = self.built.get(call.form)
        if built is None or not built.snapshot.fits(net):
            with captured.FOLLOWING:
                built = self.built.get(call.form)  # by another thread meanwhile
                if built is None or not built.snapshot.fits(net):
                    try:
                        built = self.build(net, call)
                    except ValueError as error:
                        built = self._keep(call, Built(Snapshot(net, self._private), None, str(error)))
        return built.program if built.program is not None else str(built.reason)

    def build(self, net: nn.Module, call: Call) -> Built:
        """A program of `net` as it is. Raises ValueError as `accelerate` does, and for a network that sets other values
        on its modules with every call; the first one may, and each may leave tensors there that no pass reads."""
        how = self.how._replace(measure=self.how.measure and call.form == self.example.form)
        plain, apart = self._plain(net), frozenset[tuple[int, str]]()
        for attempt in range(3):
            before, program = Snapshot(net, self._private, apart), build(plain, call, how)
            with torch.inference_mode(False), torch.no_grad(), evaluating(plain):
                come = plain(*deepcopy(call.args), **deepcopy(call.kwargs))
                if call.cast:
                    program.cast(come, call.leaves)
            self._take_back(net, plain)
            changes = [*before.changed(net)]
            if not changes:
                before.leave(program.lent)
                return self._keep(call, Built(before, program, None))
            if attempt > 0:  # the first pass may set what it likes
                apart |= {
                    (c.module, c.attribute) for c in changes if c.tensors is not None and not program.reads(c.tensors)
                }
        raise ValueError(f"net: sets {changes[0].name} with every call; accepted is a function of its input")

    def _take_back(self, net: nn.Module, plain: nn.Module) -> None:
        """What passes set on the shell `plain`, set on the network; torch.export puts containers there anew."""
        for name, value in vars(plain).items():
            if name not in (*ELSEWHERE, *self._private, "forward"):
                vars(net)[name] = value

    def _keep(self, call: Call, built: Built) -> Built:
        """Keep what was built, set as one: other threads look meanwhile."""
        if len(self.built) >= MOST_FORMS and call.form not in self.built:
            self.built.pop(next(iter([*self.built])), None)
        self.built[call.form] = built
        return built

    def __getstate__(self) -> dict[str, Any]:
        """The state of a copy or pickle, without the programs: it builds its own when it is first asked."""
        example = Call(*self.example[:4], None)  # its form is no thing to copy
        return {**vars(self), "example": example, "built": {}, "measured": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        example: Call = state["example"]
        with autocast(example.cast):
            self.__dict__.update({**state, "example": Call.of(example.args, example.kwargs)})


def build(net: nn.Module, call: Call, how: How) -> "NetworkProgram":
    """The program of `net` for calls of this form. Raises ValueError as `NetworkProgram` does."""
    from lrw.programs import NetworkProgram, widened  # these bring LLVM along
    from lrw_kernels.choice.convolution import prior
    from lrw_kernels.choice.measured import Measured

    choose = Measured(how.threads, how.rtol) if how.measure else prior(how.rtol)
    args, kwargs = widened((call.args, call.kwargs)) if call.cast else (call.args, call.kwargs)
    with autocast(None), captured.without_sources():
        return NetworkProgram(net, args, kwargs, how.threads, choose)


def _kind(leaf: Any) -> Hashable:
    """What calls of one form have in common of an argument; None for what programs do not take."""
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype, leaf.device
    return (type(leaf), leaf) if leaf is None or isinstance(leaf, int | float | str) else None
