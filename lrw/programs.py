"""A network's programs in torch's terms: built from the network, run on its inputs."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from operator import attrgetter
from time import perf_counter
from types import MethodType, SimpleNamespace
from typing import Any, NamedTuple
from weakref import finalize

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils import _pytree as pytree

from lrw.activations import autocast
from lrw.backends.layouts import channels_first, channels_last, empty
from lrw.layers import evaluating
from lrw.trace.captured import exported
from lrw.trace.split import Part, Result, split
from lrw.trace.taken import addresses
from lrw.unchanged import extent, inside
from lrw_kernels.choice.convolution import Choose
from lrw_kernels.codegen.arena import ARENA
from lrw_kernels.codegen.machine import Machine, host
from lrw_kernels.network.described import described
from lrw_kernels.program.assemble import assemble
from lrw_kernels.program.bind import Bound, placed
from lrw_kernels.program.program import Program
from lrw_kernels.winograd import Tile

ROUNDED = 0.1  # of the largest number: beyond, no rounding to half precision explains a difference
_HALF = (torch.bfloat16, torch.float16)


class Took(NamedTuple):
    """An operator of a network: its place, what computes it, why where that is torch, and the seconds it took."""

    name: str
    operator: str
    why: str
    seconds: float


class Moved(NamedTuple):
    """The bytes of activations that are read and written in a pass, and if every operator of torch's had a pass of its
    own."""

    now: int
    apart: int


class NetworkProgram:
    """`net` in eval mode, called with arguments of these forms, as programs for this machine with the tiles `choose`
    gives; what there are no kernels for runs in torch between them.

    Any number of Python threads may run it. `weights_bytes` are those it holds itself, not those of linear layers that
    it reads where the network has them. Raises ValueError for what torch.export cannot follow, for a network that
    writes to its buffers or inputs, and for one of which there is nothing that kernels compute.
    """

    def __init__(
        self, net: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], threads: int, choose: Choose
    ) -> None:
        with torch.inference_mode(False), torch.no_grad(), evaluating(net):
            captured = exported(net, args, kwargs)
            if captured.writes:
                raise ValueError("net: writes to its input; accepted is a network that leaves it as it was")
            made = split(captured, choose)
        self._dtypes: list[torch.dtype | None] | None = None
        self._structure, self._left, self._whole = captured.structure, made.left, made.whole
        self.lent = made.lent  # memory of the network's, whose numbers are read where they lie
        self.parts = [PartProgram(part, host(), threads, follows=made.whole) for part in made.parts.values()]
        for name, program in zip(made.parts, self.parts, strict=True):
            setattr(made.module, name, program)
        made.module.recompile()
        self._module, self._compute = made.module, _alone(made.module)
        constants = [t for t in captured.constants.values() if t is not None]
        self._read = {t.untyped_storage().data_ptr() for t in constants}
        held = [addresses(array) for part in self.parts for array in part.program.held]
        theirs = [*map(extent, constants)]
        own = [array for array in held if not any(inside(array, t) for t in theirs)]
        self.weights_bytes = sum(map(len, own)) + sum(part.weights_bytes for part in self.parts)

    @property
    def workspace_bytes(self) -> int:
        """The bytes of the workspaces of all parts."""
        return sum(part.program.workspace_bytes for part in self.parts)

    @property
    def moved(self) -> Moved:
        """What all parts move."""
        return Moved(*(sum(bytes) for bytes in zip(*(part.moved for part in self.parts), strict=True)))

    def reads(self, tensors: Iterable[Tensor]) -> bool:
        """Whether the network reads the memory of one of these, beside its arguments."""
        real = [t for t in tensors if not isinstance(t, FakeTensor)]
        return any(t.untyped_storage().data_ptr() in self._read for t in real)

    def run(self, leaves: Sequence[Any]) -> Any:
        """What the network gives for tensors and numbers `leaves` in the order of its arguments. A network that is one
        part gives tensors contiguous where its inputs are, else channels last; others as torch gives them."""
        if self._dtypes is None:
            come = self._compute(*self._inputs(leaves))
        else:
            with autocast(None):
                come = self._compute(*self._inputs(leaves))
            cast: dict[tuple[int, torch.dtype | None], Any] = {}  # a tensor that comes out twice does so as one
            keys = [(id(leaf), dtype) for leaf, dtype in zip(come, self._dtypes, strict=True)]
            come = [cast.setdefault(key, _cast(leaf, key[1])) for leaf, key in zip(come, keys, strict=True)]
        return pytree.tree_unflatten(come, self._structure) if self._structure is not None else come

    def cast(self, like: Any, leaves: Sequence[Any]) -> None:
        """From now on give tensors of the dtypes that those have of `like`, which the network gave under autocast of
        these arguments, and take such, too; between them all is float32.

        Raises ValueError where that gives something else than rounding explains: for networks that look at dtypes.
        """
        expected = pytree.tree_leaves(like)
        self._dtypes = [leaf.dtype if isinstance(leaf, Tensor) else None for leaf in expected]
        try:
            come = pytree.tree_leaves(self.run(leaves))
        except RuntimeError as error:  # torch's own operators between the programs
            raise ValueError(f"net: does not run in float32, as it does under autocast: {error}") from error
        if not all(map(_alike, come, expected)):
            raise ValueError("net: gives something else in float32 than under autocast, beyond what rounding explains")

    def took(self, leaves: Sequence[Any], rounds: int) -> list[Took]:
        """What each operator took in the fastest of `rounds` runs, in their order."""
        clock = _Clock(self._module, rounds)
        with autocast(None):
            clock.run(*self._inputs(leaves))
        found = []
        for node in self._module.graph.nodes:
            if node.op == "call_module":
                found += clock.parts[node]
            elif node in self._left:
                place, operator, why = self._left[node]
                found.append(Took(place, f"torch's {operator}", why, clock.seconds[node]))
        return found

    def _inputs(self, leaves: Sequence[Any]) -> Sequence[Any]:
        """Between parts torch's operators expect tensors to lie as they did when they were followed."""
        leaves = leaves if self._dtypes is None else widened(leaves)
        return leaves if self._whole else [t.contiguous() if isinstance(t, Tensor) else t for t in leaves]


def widened(values: Any) -> Any:
    """`values` with those of its tensors in float32 that are in half precision."""
    return pytree.tree_map_only(Tensor, lambda t: t.float() if t.dtype in _HALF else t, values)


def _cast(value: Any, dtype: torch.dtype | None) -> Any:
    return value if dtype is None else value.to(dtype)


def _alike(come: Any, expected: Any) -> bool:
    """Whether two results differ by what half precision in every layer may do at most."""
    if not isinstance(expected, Tensor) or not expected.is_floating_point():
        return True  # labels may be others where two are as good
    largest = float(expected.double().abs().max())
    return float((come.double() - expected).abs().max()) <= ROUNDED * largest if largest > 0 else True


class PartProgram(nn.Module):
    """A part of a network as a program: tensors go in and come out. `follows`: what comes out lies as what goes in,
    contiguous or channels last.

    Each run takes a workspace of its own, of those that all programs share.
    """

    def __init__(self, part: Part, machine: Machine, threads: int, *, follows: bool) -> None:
        super().__init__()
        made = assemble(part.network, machine, threads, in_place=True)
        self._machine, self._results, self._follows = machine, part.results, follows
        self._weights, self.weights_bytes = placed(made), len(made.weights)
        self._layers = [(described(node), details["steps"]) for node, details in made.layers]
        computed = [node for node, details in made.layers if details["steps"]]  # others lie where they are
        self.moved = Moved(sum(map(part.network.moved_bytes, computed)), part.apart)
        self.program: Program = replace(made, weights=b"", layers=())  # weights are there once
        inputs = len(part.network.inputs)
        self._sizes = self.program.outside[inputs:]
        self._idle = deque([Bound(self.program, self._weights)])
        finalize(self, ARENA.trim)  # its workspace may be larger than what is kept

    def forward(self, *given: Tensor) -> Any:
        """The tensors that come out, a single one without a tuple."""
        return self.run(given)

    def run(self, given: Sequence[Tensor], times: list[float] | None = None) -> Any:
        """As `forward`; appends to `times` the seconds of each step."""
        threads = torch.get_num_threads()
        sources = [self._inner(x, threads) for x in given]  # by name: an address keeps no tensor alive
        outputs = [empty(size, torch.float32) for size in self._sizes]
        try:
            bound = self._idle.pop()
        except IndexError:  # all are at work
            bound = Bound(self.program, self._weights)
        buffers = ARENA.take(self.program.buffer_bytes)
        try:
            bound.run(buffers.address, [t.data_ptr() for t in (*sources, *outputs)], threads, times)
        finally:
            ARENA.give_back(buffers)
        self._idle.append(bound)
        first = all(x.is_contiguous() for x in given)
        come = tuple(self._outer(outputs[result.output], result, first, threads) for result in self._results)
        return come if len(come) > 1 else come[0]

    def took(self, given: Sequence[Tensor], rounds: int) -> list[Took]:
        """The least seconds each operator of the program took in `rounds` runs."""
        of_steps = []
        for _ in range(rounds):
            of_steps.append(times := list[float]())
            self.run(given, times)
        best, found = iter([min(column) for column in zip(*of_steps, strict=True)]), []
        for entry, steps in self._layers:
            tile = f" {Tile.parse(entry['tile']).name}" if "tile" in entry else ""
            operator = f"{entry['operator']}{tile}"
            found.append(Took(entry["name"], operator, "", sum(next(best) for _ in range(steps))))
        return found

    def _inner(self, x: Tensor, threads: int) -> Tensor:
        inner = channels_last(x.permute(0, 2, 3, 4, 1), self._machine, threads) if x.dim() == 5 else x
        return inner.contiguous()

    def _outer(self, y: Tensor, result: Result, first: bool, threads: int) -> Tensor:
        if len(result.shape) != 5:  # [N, C], with or without ones behind
            return y.view(result.shape)
        if first if self._follows else not result.channels_last:
            return channels_first(y, self._machine, threads)
        return y.permute(0, 4, 1, 2, 3)


def _alone(module: fx.GraphModule) -> Callable[..., Any]:
    """What `module` computes, without a call of a module: those mean something else while another thread has
    torch.export follow a network."""
    reads = SimpleNamespace()
    for node in (node for node in module.graph.nodes if node.op in ("get_attr", "call_module")):
        *path, last = str(node.target).split(".")
        at = reads
        for name in path:
            at = vars(at).setdefault(name, SimpleNamespace())
        value = attrgetter(str(node.target))(module)
        vars(at)[last] = value.forward if isinstance(value, PartProgram) else value
    return MethodType(type(module).forward, reads)


class _Clock(fx.Interpreter):
    """Runs a network's graph node by node, each `rounds` times, and keeps the least seconds it took."""

    def __init__(self, module: fx.GraphModule, rounds: int) -> None:
        super().__init__(module)
        self._rounds = rounds
        self.parts: dict[fx.Node, list[Took]] = {}
        self.seconds: dict[fx.Node, float] = {}

    def run_node(self, n: fx.Node) -> Any:
        """What `n` gives."""
        result = super().run_node(n)
        if n.op == "call_module":
            part: Any = self.fetch_attr(str(n.target))
            self.parts[n] = part.took(self.fetch_args_kwargs_from_env(n)[0], self._rounds)
        elif n.op == "call_function":
            times = []
            for _ in range(self._rounds):
                began = perf_counter()
                super().run_node(n)
                times.append(perf_counter() - began)
            self.seconds[n] = min(times)
        return result
