"""One walk over a graph of torch's operators, in order: each becomes nodes of the kernels' network, or is refused."""

import inspect
import operator
from collections.abc import Iterator
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx

from lrw.trace.captured import Captured
from lrw.trace.site import STAND_IN, Activation, Nodes, Refused, Site, Value, size_of
from lrw.trace.table import TABLE, Function
from lrw.trace.taken import Taken
from lrw.unchanged import extent, overlap
from lrw_kernels.network.graph import INPUT, Node

_HELD = ("weight", "parametrizations")  # children that hold parameters: of GroupedConv3d, of torch's parametrizations


class Walk:
    """A walk over `captured`, once, in order.

    What its nodes are worth is in `values`: activations, or constants where they depend on no input. `made` has the
    kernels' nodes of each of torch's that became such, none where it only rearranges. `refused` says why others did
    not; "" where what they read was refused. `taken`: the memory of constants that nodes have numbers of.
    """

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self.inputs = _inputs(captured)
        self._nodes = Nodes(*(given.name for given in self.inputs))
        self.values: dict[fx.Node, Value] = dict(captured.constants)
        self.values |= zip(captured.inputs, self.inputs, strict=True)
        self.made: dict[fx.Node, tuple[Node, ...]] = {}
        self.refused: dict[fx.Node, str] = {}
        self.taken = Taken()
        for node in captured.graph.nodes:
            if node.op == "call_function" and node.users:
                before = len(self._nodes)
                self.values[node] = self._value(node)
                if node not in self.refused and any(isinstance(v, Activation) for v in leaves(self.values[node])):
                    self.made[node] = tuple(self._nodes)[before:]

    @property
    def reasons(self) -> list[str]:
        """Why operators were refused, each said once, with its place and shape."""
        found = [
            f"{name_of(n)} at {self.place(n)!r} {list(_shape(n))}: {why}" for n, why in self.refused.items() if why
        ]
        return list(dict.fromkeys(found))

    def _value(self, node: fx.Node) -> Value:
        arguments: Any = fx.map_arg((node.args, node.kwargs), lambda n: self.values.get(n))  # type: ignore[arg-type, return-value]
        if node.target is operator.getitem:
            return self._part(node, *arguments[0])
        given = list(leaves(arguments))
        if isinstance(node.target, torch._ops.OpOverload) and not any(isinstance(v, Activation) for v in given):
            if torch.Tag.nondeterministic_seeded not in node.target.tags:
                return self._constant(node.target, *arguments)
            return self._refuse(node, "draws random numbers (training mode?)")
        self.taken.note(given)
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._refuse(node, "is none of this version's operators")
        return self._converted(node, node.target, *arguments)

    def _constant(self, target: torch._ops.OpOverload, args: Any, kwargs: Any) -> Value:
        """What an operator makes of constants: other numbers, or views of them."""
        result: Value = target(*args, **kwargs)
        views = [extent(t) for t in leaves(result) if isinstance(t, Tensor)]
        given = [t for t in leaves((args, kwargs)) if isinstance(t, Tensor)]
        self.taken.note(t for t in given if not any(overlap(extent(t), view) for view in views))
        return result

    def _part(self, node: fx.Node, whole: Value, index: int) -> Value:
        """One of several results."""
        (given,) = node.all_input_nodes
        if given in self.refused:
            return self._refuse(node, "")
        return whole[index] if isinstance(whole, tuple | list) else whole

    def _converted(self, node: fx.Node, target: torch._ops.OpOverload, args: Any, kwargs: Any) -> Value:
        function = TABLE.get(target._schema.name)
        if function is None:
            return self._refuse(node, "is none of this version's operators")
        reads = [v for v in leaves((args, kwargs)) if isinstance(v, Activation) and size_of(v.shape) is None]
        if reads:  # what was refused, or an input
            strange = any(v in self.inputs for v in reads)
            return self._refuse(node, "an input is no float32 [N, C, D, H, W] or [N, C]" if strange else "")
        away = {str(v.device) for v in leaves((args, kwargs)) if isinstance(v, Tensor)} - {"cpu"}
        if away:
            return self._refuse(node, f"a constant on {', '.join(away)}; accepted are constants on the CPU")
        site = Site(self._nodes, self.place(node), _shape(node), self.taken)
        try:
            _check_dtype(node)
            made = function(site, **_known(function, _arguments(target, args, kwargs)))
            _check_used(node, made)
            return made
        except Refused as reason:
            return self._refuse(node, str(reason))

    def _refuse(self, node: fx.Node, reason: str) -> Value:
        """Note it and go on, to find what else there is, with a stand-in for the result."""
        self.refused[node] = reason
        value = node.meta.get("val")
        each = tuple(self._unknown(node.name, v) for v in leaves(value))
        return each if isinstance(value, tuple | list) else each[0]

    def _unknown(self, name: str, value: object) -> Activation:
        return Activation(self._nodes.name(name), tuple(value.shape)) if _is_ours(value) else STAND_IN

    def place(self, node: fx.Node) -> str:
        """The path of the module that calls `node`, and the operator's name where that module has others in it."""
        stack = node.meta.get("nn_module_stack") or {"": ("", None)}
        path = list(stack.values())[-1][0].partition("@")[0]
        within = self._captured.modules.get(path)
        composite = within is None or any(name not in _HELD for name, _ in within.named_children())
        own = name_of(node).rpartition(".")[2].strip("_")
        return ".".join(filter(None, (path, own))) if composite or not path else path


def _inputs(captured: Captured) -> tuple[Activation, ...]:
    """The network's inputs, called as their placeholders are; a single tensor is called INPUT, whatever its name."""
    forms = {node: node.meta.get("val") for node in captured.inputs}
    alone = sum(isinstance(form, Tensor) for form in forms.values()) == 1
    return tuple(_given(INPUT if alone and isinstance(form, Tensor) else n.name, form) for n, form in forms.items())


def _given(name: str, value: object) -> Activation:
    """An input; of no shape that networks have where it is none that kernels read."""
    return Activation(name, tuple(value.shape) if _is_ours(value) else ())


def _is_ours(value: object) -> TypeGuard[Tensor]:
    """Whether `value` is a float32 tensor on the CPU, of sizes that do not depend on numbers in others."""
    if not isinstance(value, Tensor) or value.dtype != torch.float32 or value.device.type != "cpu":
        return False
    return all(isinstance(size, int) for size in value.shape)


def leaves(value: Any) -> Iterator[Any]:
    """All that `value` holds inside tuples, lists and dictionaries, in order; `value` itself if it is none of these."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for part in value:
            yield from leaves(part)
    else:
        yield value


def name_of(node: fx.Node) -> str:
    """The name of the operator a node calls."""
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


def _check_used(node: fx.Node, made: Value) -> None:
    """Raise Refused where one of several results is used that is not there, such as a pool's indices."""
    taken = [user.args[1] for user in node.users if user.target is operator.getitem]
    missing = [index for index in taken if isinstance(made, tuple | list) and made[index] is None]  # type: ignore[index]
    if missing:
        raise Refused(f"its output {missing[0]} is used; accepted is output 0 alone")


def _check_dtype(node: fx.Node) -> None:
    first = _first(node)
    if first is not None and first.dtype != torch.float32:
        raise Refused(f"gives {first.dtype}; accepted is torch.float32")
