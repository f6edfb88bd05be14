"""From a torch network to the data structure of an exported one, by torch.export."""

import inspect
import logging
import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from lrw import checks
from lrw.export.fuse import fused, needed
from lrw.export.operators import TABLE, Function
from lrw.export.site import STAND_IN, Activation, Nodes, Refused, Site, Value, size_of
from lrw.layers import evaluating, named_layers
from lrw.nn import WinogradLayer
from lrw.ops import TileLike
from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import Copy
from lrw_kernels.winograd.cost import AUTO_OUTPUTS


def trace(
    net: nn.Module,
    example_input: Tensor,
    name: str = "net",
    *,
    tile: TileLike | str = "auto",
    most_outputs: int = AUTO_OUTPUTS[-1],
) -> Network:
    """`net` in eval mode as a Network of `name` (a C identifier) for inputs of `example_input`'s sizes.

    example_input [N, C, D, H, W] or [N, C], float32 on the CPU like the network; one tensor goes in, one comes out.
    Convolutions that Winograd takes get the tile lrw itself would choose, of those with up to `most_outputs` per axis,
    or `tile`; Winograd layers keep theirs. Batch norm, additions and ReLU are fused into the convolutions before them.
    Nodes have the names of the modules they come from. `net` is not changed. Raises ValueError for arguments that are
    not accepted, for what torch.export refuses (with its reason), and for operators that cannot be exported: all of
    them, each with its place and shape.
    """
    _check(net, example_input)
    if isinstance(tile, str) and tile != "auto":
        raise ValueError(f"tile: {tile!r}; accepted are 'auto', an int, three ints or a Tile")
    with torch.no_grad(), evaluating(net), np.errstate(all="ignore"):  # what is not finite is refused below
        program = _exported(net, example_input)
        walk = _Walk(net, program, tile, most_outputs)
        nodes, output = walk.nodes(), walk.output()
        if output.name == INPUT:
            output = Activation("output", output.shape)
            nodes = (Node(output.name, Copy(), (INPUT,), output.size),)
        nodes = fused(needed(nodes, output.name), walk.input.size)
    network = Network(name, walk.input.size, nodes)
    _check_finite(network)
    return network


def _check(net: nn.Module, x: Tensor) -> None:
    if not isinstance(net, nn.Module):
        raise ValueError(f"net: a {type(net).__name__}; accepted is a torch network (nn.Module)")
    checks.check_unwrapped(net)
    if not isinstance(x, Tensor):
        raise ValueError(f"example_input: a {type(x).__name__}; accepted is one tensor [N, C, D, H, W]")
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"example_input: {x.dtype} on {x.device}; accepted is torch.float32 on the CPU")
    if x.dim() not in (2, 5) or x.numel() == 0:
        raise ValueError(f"example_input: shape {tuple(x.shape)}; accepted are [N, C, D, H, W] and [N, C], not empty")
    for name, t in (*net.named_parameters(), *net.named_buffers()):
        if t.is_floating_point() and (t.dtype != torch.float32 or t.device.type != "cpu"):
            raise ValueError(f"net: {name} is {t.dtype} on {t.device}; accepted is torch.float32 on the CPU")
        if not bool(torch.isfinite(t).all()):
            raise ValueError(f"{name}: weights hold NaN or infinity; accepted are finite weights")
    for name, layer in named_layers(net, WinogradLayer).items():
        if layer.geometry.rectified:
            raise ValueError(f"net: {name!r} is a Winograd-ReLU layer; this version exports layers without")


def _exported(net: nn.Module, x: Tensor) -> torch.export.ExportedProgram:
    """The graph of operators that change none of their inputs, composite ones (linear, conv3d) whole."""
    with _silence():
        try:
            program = torch.export.export(net, (x.detach().clone(),), strict=False).run_decompositions({})
        except Exception as error:  # of many classes, some private, or whatever the network raises
            reason = next((line for line in str(error).splitlines() if line.strip()), "no reason given")
            raise ValueError(f"net: torch.export cannot follow it: {type(error).__name__}: {reason.strip()}") from error
    program.graph.eliminate_dead_code()
    return program


@contextmanager
def _silence() -> Iterator[None]:
    """Without what torch says of its own doings: warnings, lines of its loggers, graphs on stderr."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


_HELD = ("weight", "parametrizations")  # children that hold parameters: of GroupedConv3d, of torch's parametrizations


class _Walk:
    """Over the graph, once, in order; what its nodes are worth so far is in `_values`."""

    def __init__(
        self, net: nn.Module, program: torch.export.ExportedProgram, tile: TileLike | str, most_outputs: int
    ) -> None:
        self._modules, self._program = dict(net.named_modules()), program
        self._tile, self._most_outputs = tile, most_outputs
        self._nodes = Nodes()
        self._values: dict[fx.Node, Value] = {}
        self._refusals: list[str] = []
        self.input = self._place_inputs()

    def _place_inputs(self) -> Activation:
        program = self._program
        constants = {**program.state_dict, **program.constants}
        found = []
        placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
            if spec.kind is torch.export.graph_signature.InputKind.USER_INPUT:
                found.append(Activation(INPUT, tuple(node.meta["val"].shape)))
                self._values[node] = found[-1]
            else:
                self._values[node] = constants.get(spec.target)
        return found[0]

    def nodes(self) -> tuple[Node, ...]:
        """The nodes of all operators, in order. Raises ValueError for those that cannot be exported."""
        for node in self._program.graph.nodes:
            if node.op == "call_function" and node.users:
                self._values[node] = self._value(node)
        if self._refusals:
            raise ValueError(f"net: cannot be exported, because of {'; '.join(dict.fromkeys(self._refusals))}")
        return tuple(self._nodes)

    def output(self) -> Activation:
        """The one tensor that comes out. Raises ValueError for anything else."""
        kinds, specs = torch.export.graph_signature.OutputKind, self._program.graph_signature.output_specs
        changed = [str(spec.target) for spec in specs if spec.kind is kinds.BUFFER_MUTATION]
        if changed:
            raise ValueError(f"net: changes its buffer {changed[0]} when called; accepted is a function of its input")
        returned = next(iter(self._program.graph.find_nodes(op="output"))).args[0]
        outputs = [node for node, spec in zip(returned, specs, strict=True) if spec.kind is kinds.USER_OUTPUT]
        if len(outputs) != 1:
            raise ValueError(f"net: {len(outputs)} tensors come out; accepted is one")
        value = self._values.get(outputs[0]) if isinstance(outputs[0], fx.Node) else None
        if not isinstance(value, Activation):
            raise ValueError("net: what comes out does not depend on the input")
        return value

    def _value(self, node: fx.Node) -> Value:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda n: self._values.get(n))  # type: ignore[arg-type, return-value]
        if node.target is operator.getitem:
            return self._part(node, *arguments[0])
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._refuse(node, _name(node), "is none of this version's operators")
        tensors = list(_leaves(arguments))
        if not any(isinstance(t, Activation) for t in tensors):
            if torch.Tag.nondeterministic_seeded not in node.target.tags:
                return node.target(*arguments[0], **arguments[1])
            return self._refuse(node, _name(node), "draws random numbers (training mode?)")
        return self._converted(node, node.target, *arguments)

    def _part(self, node: fx.Node, whole: Value, index: int) -> Value:
        """One of several results; the stand-in for one that is not there, such as a pool's indices."""
        part = whole[index] if isinstance(whole, tuple | list) else whole
        if part is not None:
            return part
        (given,) = node.all_input_nodes
        self._refuse(given, _name(given), f"its output {index} is used; accepted is output 0 alone")
        return STAND_IN

    def _converted(self, node: fx.Node, target: torch._ops.OpOverload, args: Any, kwargs: Any) -> Value:
        function = TABLE.get(target._schema.name)
        if function is None:
            return self._refuse(node, _name(node), "is none of this version's operators")
        if any(isinstance(v, Activation) and size_of(v.shape) is None for v in _leaves((args, kwargs))):
            return self._refuse(node, None, "")  # what it reads was refused
        site = Site(self._nodes, self._place(node), _shape(node), self._tile, self._most_outputs)
        try:
            _check_dtype(node)
            return function(site, **_known(function, _arguments(target, args, kwargs)))
        except Refused as reason:
            return self._refuse(node, _name(node), str(reason))

    def _refuse(self, node: fx.Node, name: str | None, reason: str) -> Value:
        """Note it and go on, to find what else there is, with a stand-in for the result."""
        if name is not None:
            self._refusals.append(f"{name} at {self._place(node)!r} {list(_shape(node))}: {reason}")
        value = node.meta.get("val")
        each = tuple(Activation("", tuple(v.shape)) if isinstance(v, Tensor) else STAND_IN for v in _leaves(value))
        return each if isinstance(value, tuple | list) else each[0]

    def _place(self, node: fx.Node) -> str:
        """The module's name; with the operator's where the module is made of others, and calls it itself."""
        stack = node.meta.get("nn_module_stack") or {"": ("", None)}
        path = list(stack.values())[-1][0].partition("@")[0]
        within = self._modules.get(path)
        composite = within is None or any(name not in _HELD for name, _ in within.named_children())
        own = _name(node).rpartition(".")[2].strip("_")
        return ".".join(filter(None, (path, own))) if composite or not path else path


def _leaves(value: Any) -> Iterator[Any]:
    """What is inside tuples, lists and dictionaries."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))


def _arguments(target: torch._ops.OpOverload, args: Any, kwargs: Any) -> dict[str, Any]:
    """By the schema's names, with its defaults; the first one, be it "self" or "input", as "x"."""
    given: dict[str, Any] = {}
    for i, parameter in enumerate(target._schema.arguments):
        name = "x" if parameter.name in ("self", "input") else parameter.name
        default = parameter.default_value if parameter.has_default_value() else None
        given[name] = args[i] if i < len(args) else kwargs.get(parameter.name, default)
    return given


def _known(function: Function, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments that `function` takes, of those `given`. Raises Refused for others, unless they are None."""
    taken = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return given
    for name, value in given.items():
        if name not in taken and value is not None:
            raise Refused(f"{name} {value!r}; accepted is what has none")
    return {name: value for name, value in given.items() if name in taken}


def _first(node: fx.Node) -> Tensor | None:
    """What the operator gives, as torch's tracer has it; the first of several tensors."""
    return next((value for value in _leaves(node.meta.get("val")) if isinstance(value, Tensor)), None)


def _shape(node: fx.Node) -> tuple[int, ...]:
    first = _first(node)
    return () if first is None else tuple(first.shape)


def _check_dtype(node: fx.Node) -> None:
    first = _first(node)
    if first is not None and first.dtype != torch.float32:
        raise Refused(f"gives {first.dtype}; accepted is torch.float32")


def _check_finite(network: Network) -> None:
    """Folding may have gone out of float32's range."""
    for node in network.nodes:
        for field in fields(node.operator):
            for value in _leaves(getattr(node.operator, field.name)):
                if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                    raise ValueError(f"{node.name}: its folded {field.name} holds NaN or infinity")
