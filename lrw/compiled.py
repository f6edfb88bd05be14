"""The second door as torch.compile has it: `torch.compile(net, backend="lrw")`.

dynamo follows the network, breaks its graph where it has to, and hands over each piece with all of its arguments,
weights among them. A piece runs as an accelerated network does; where that one's own forward would, the graph does.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, fx, get_num_threads, nn

from lrw import checks
from lrw.engine import Call, Engine, How
from lrw.trace.captured import FOLLOWING

_STATIC = "_dynamo_static_input_type"  # what dynamo calls a weight or buffer of the network
OPTIONS = ("rtol", "measure", "threads")


def backend(
    graph: fx.GraphModule, example_inputs: Sequence[Any], *, options: Mapping[str, Any] | None = None, mode: str = ""
) -> Callable[..., Any]:
    """What computes `graph`, for torch.compile. `options` are those of `lrw.accelerate`: rtol, measure, threads.

    Raises ValueError for other options and values.
    """
    given = dict(options or {})
    unknown = [name for name in given if name not in OPTIONS]
    if unknown or mode:
        raise ValueError(f"options: {unknown or mode}; accepted are {', '.join(OPTIONS)}, and no mode")
    threads = given.get("threads") or get_num_threads()
    checks.check_count(threads, "threads")
    how = How(threads, checks.check_rtol(given.get("rtol", 1e-4)), bool(given.get("measure", True)))
    return _Piece(graph, _weights(graph, example_inputs), _numbers(graph), how)


def _weights(graph: fx.GraphModule, examples: Sequence[Any]) -> tuple[int, ...]:
    """Which of the graph's arguments are weights and buffers of the network."""
    found = zip(graph.graph.find_nodes(op="placeholder"), examples, strict=True)
    static = [isinstance(x, nn.Parameter) or _STATIC in node.meta.get("tensor_dict", {}) for node, x in found]
    return tuple(i for i, held in enumerate(static) if held)


def _numbers(graph: fx.GraphModule) -> tuple[int, ...]:
    """Which of the graph's arguments are numbers that come as tensors, where sizes are dynamic; from now on it takes
    them as they are."""
    found = []
    for i, node in enumerate(graph.graph.find_nodes(op="placeholder")):
        if node.users and all(user.op == "call_method" and user.target == "item" for user in node.users):
            found.append(i)
            for user in [*node.users]:
                user.replace_all_uses_with(node)
                graph.graph.erase_node(user)
    if found:
        graph.recompile()
    return tuple(found)


class _Piece:
    """A piece of a network that dynamo followed, called with all its arguments; those numbered in `weights` are held
    fast as a network's until others come, those in `numbers` are numbers."""

    def __init__(self, graph: fx.GraphModule, weights: tuple[int, ...], numbers: tuple[int, ...], how: How) -> None:
        self._graph, self._weights, self._numbers, self._how = graph, weights, numbers, how
        self._net: tuple[_Held, Engine] | None = None  # set as one: threads may call at once

    def __call__(self, *args: Any) -> Any:
        """What the graph gives for `args`."""
        args = tuple(x.item() if i in self._numbers else x for i, x in enumerate(args))
        call = Call.of(tuple(x for i, x in enumerate(args) if i not in self._weights), {})
        held, engine = self._holding([args[i] for i in self._weights], call)
        program = engine.answer(held, call)
        if not isinstance(program, str):
            return program.run(call.leaves)
        with FOLLOWING.passing():
            return self._graph(*args)

    def _holding(self, weights: list[Tensor], example: Call) -> "tuple[_Held, Engine]":
        net = self._net
        if net is None or any(a is not b for a, b in zip(net[0].weights, weights, strict=True)):
            held = _Held(self._graph, dict(zip(self._weights, weights, strict=True))).eval()
            net = self._net = held, Engine(self._how, example, _itself, ("weights",))
        return net


def _itself(net: nn.Module) -> nn.Module:
    return net


class _Held(nn.Module):
    """A graph as a network of the arguments that are no weights."""

    def __init__(self, graph: fx.GraphModule, weights: dict[int, Tensor]) -> None:
        super().__init__()
        self.graph, self.weights, self._places = graph, list(weights.values()), tuple(weights)
        for i, tensor in weights.items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(f"weight_{i}", tensor)
            else:
                self.register_buffer(f"weight_{i}", tensor)

    def forward(self, *given: Any) -> Any:
        """What the graph gives for `given`, with the weights where they belong."""
        rest = iter(given)
        held = dict(zip(self._places, self.weights, strict=True))
        count = len(held) + len(given)
        return self.graph(*(held[i] if i in held else next(rest) for i in range(count)))
