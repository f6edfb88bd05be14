"""One walk over a graph of torch's operators, in order: each becomes nodes of the kernels' network, or is refused."""

import inspect
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx

from lrw.trace.captured import Captured
from lrw.trace.site import STAND_IN, Activation, Nodes, Refused, Site, Value, size_of
from lrw.trace.table import TABLE, Function
from lrw_kernels.choice.convolution import Choose
from lrw_kernels.network.graph import INPUT, Node

_HELD = ("weight", "parametrizations")  # children that hold parameters: of GroupedConv3d, of torch's parametrizations


class Walk:
    """A walk over `captured`, once, in order; what its nodes are worth so far is in `_values`."""

    def __init__(self, captured: Captured, choose: Choose) -> None:
        self._captured, self._choose = captured, choose
        self.inputs = _inputs(captured)
        self._nodes = Nodes(*(given.name for given in self.inputs))
        self._values: dict[fx.Node, Value] = dict(captured.constants)
        self._values |= zip(captured.inputs, self.inputs, strict=True)
        self._refusals: list[str] = []

    def nodes(self) -> tuple[Node, ...]:
        """The nodes of all operators, in order. Raises ValueError for those that cannot be exported."""
        for node in self._captured.graph.nodes:
            if node.op == "call_function" and node.users:
                self._values[node] = self._value(node)
        if self._refusals:
            raise ValueError(f"net: cannot be exported, because of {'; '.join(dict.fromkeys(self._refusals))}")
        return tuple(self._nodes)

    def outputs(self) -> tuple[Activation, ...]:
        """The tensors that come out. Raises ValueError for one that does not depend on the inputs."""
        values = [self._values.get(given) for given in self._captured.outputs if isinstance(given, fx.Node)]
        found = tuple(value for value in values if isinstance(value, Activation))
        if len(found) < len(self._captured.outputs):
            raise ValueError("net: what comes out does not depend on the input")
        return found

    def _value(self, node: fx.Node) -> Value:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda n: self._values.get(n))  # type: ignore[arg-type, return-value]
        if node.target is operator.getitem:
            return self._part(node, *arguments[0])
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._refuse(node, _name(node), "is none of this version's operators")
        tensors = list(leaves(arguments))
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
        if any(isinstance(v, Activation) and size_of(v.shape) is None for v in leaves((args, kwargs))):
            return self._refuse(node, None, "")  # what it reads was refused
        site = Site(self._nodes, self._place(node), _shape(node), self._choose)
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
        each = tuple(Activation("", tuple(v.shape)) if isinstance(v, Tensor) else STAND_IN for v in leaves(value))
        return each if isinstance(value, tuple | list) else each[0]

    def _place(self, node: fx.Node) -> str:
        """The path of the module that calls `node`, and the operator's name where that module has others in it."""
        stack = node.meta.get("nn_module_stack") or {"": ("", None)}
        path = list(stack.values())[-1][0].partition("@")[0]
        within = self._captured.modules.get(path)
        composite = within is None or any(name not in _HELD for name, _ in within.named_children())
        own = _name(node).rpartition(".")[2].strip("_")
        return ".".join(filter(None, (path, own))) if composite or not path else path


def _inputs(captured: Captured) -> tuple[Activation, ...]:
    """The network's inputs, called as their placeholders are; a single one is called INPUT, whatever its name."""
    nodes = captured.inputs
    names = [INPUT] if len(nodes) == 1 else [node.name for node in nodes]
    return tuple(Activation(name, tuple(node.meta["val"].shape)) for name, node in zip(names, nodes, strict=True))


def leaves(value: Any) -> Iterator[Any]:
    """All that `value` holds inside tuples, lists and dictionaries, in order; `value` itself if it is none of these."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def _name(node: fx.Node) -> str:
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return target._schema.name.replace("::", ".")
    return getattr(target, "__name__", str(target))


def _arguments(target: torch._ops.OpOverload, args: Any, kwargs: Any) -> dict[str, Any]:
    """A call's arguments by their schema's names, defaults included; the first, "self" or "input", is called "x"."""
    given: dict[str, Any] = {}
    for i, parameter in enumerate(target._schema.arguments):
        name = "x" if parameter.name in ("self", "input") else parameter.name
        default = parameter.default_value if parameter.has_default_value() else None
        given[name] = args[i] if i < len(args) else kwargs.get(parameter.name, default)
    return given


def _known(function: Function, given: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments `given` that `function` takes. Raises Refused for others, unless they are None."""
    taken = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        return given
    for name, value in given.items():
        if name not in taken and value is not None:
            raise Refused(f"{name} {value!r}; accepted is what has none")
    return {name: value for name, value in given.items() if name in taken}


def _first(node: fx.Node) -> Tensor | None:
    """The tensor an operator gives, as torch's tracer recorded it, or the first of several; None if it gives none."""
    return next((value for value in leaves(node.meta.get("val")) if isinstance(value, Tensor)), None)


def _shape(node: fx.Node) -> tuple[int, ...]:
    first = _first(node)
    return () if first is None else tuple(first.shape)


def _check_dtype(node: fx.Node) -> None:
    first = _first(node)
    if first is not None and first.dtype != torch.float32:
        raise Refused(f"gives {first.dtype}; accepted is torch.float32")
