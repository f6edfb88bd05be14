"""A graph of torch's operators in parts: networks of the kernels' operators, and what stays torch's between them.

torch's own partitioner (`torch.fx.passes`) groups the operators that became nodes, such that the parts form no circle.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner, Partition
from torch.fx.passes.operator_support import OperatorSupportBase

from lrw.trace.captured import Captured
from lrw.trace.network import part, ready
from lrw.trace.site import Activation
from lrw.trace.walk import Walk, name_of
from lrw_kernels.choice.convolution import Choose
from lrw_kernels.network.graph import Network, Node
from lrw_kernels.network.operators import Direct, Linear, Transposed, Winograd

_PREFIX = "part_"
_VALUE, _LEFT = "lrw_value", "lrw_left"  # in the meta of nodes: what they are worth in the walk, and why torch's
_WORTH = (Winograd, Direct, Transposed, Linear)  # a part without one of them costs more at its borders than it saves


@dataclass(frozen=True)
class Result:
    """A tensor that comes out of a part: the place of its activations among the network's outputs, its shape in torch,
    and whether it lies channels last there."""

    output: int
    shape: tuple[int, ...]
    channels_last: bool


@dataclass(frozen=True, eq=False)
class Part:
    """Operators that run as one program: their `network`, whose inputs are the tensors that go in, and the tensors
    that come out; a single one is not in a tuple. Operator by operator it would read and write `apart` bytes."""

    network: Network
    results: tuple[Result, ...]
    apart: int


@dataclass(frozen=True, eq=False)
class Split:
    """`module` takes the tensors and numbers that go in, and gives a tuple of what comes out. It calls modules named in
    `parts`, which are yet to be put there, and torch's operators; `left` says by their nodes: place, operator, why.
    What is written to `lent` memory, as ranges of addresses, the parts have, and nothing else is made of it."""

    module: fx.GraphModule
    parts: Mapping[str, Part]
    left: Mapping[fx.Node, tuple[str, str, str]]
    lent: tuple[range, ...]

    @property
    def whole(self) -> bool:
        """Whether a single part computes everything."""
        return not self.left and len(self.parts) == 1


def split(captured: Captured, choose: Choose) -> Split:
    """`captured` in parts, the tiles of convolutions from `choose`; its graph is taken apart.

    Raises ValueError where nothing is left for a part, with what cannot be computed and why, and for weights that are
    not finite once they are folded.
    """
    with torch.no_grad():
        walk = Walk(captured)
    module = _standing_alone(captured, walk)
    partitioner = CapabilityBasedPartitioner(module, _Made(walk), allows_single_node_partition=True)
    proposed = partitioner.propose_partitions()
    everything = len(proposed) == 1 and not walk.refused
    taken = [some for some in proposed if everything or _worth(some, walk)]
    if not taken:
        reasons = "; ".join(walk.reasons) or "there is no convolution"
        raise ValueError(f"net: none of it can be computed by kernels, because of {reasons}")
    made = [[node for of in module.graph.nodes if of in some.nodes for node in walk.made[of]] for some in taken]
    partitioner.fuse_partitions(taken, _PREFIX)
    parts = {}
    for call in module.graph.find_nodes(op="call_module"):
        name = str(call.target)
        inner = module.get_submodule(name)
        assert isinstance(inner, fx.GraphModule)
        parts[name] = _part(name, call, inner, made[int(name.removeprefix(_PREFIX))], choose)
    module.graph.eliminate_dead_code()
    left = {node: node.meta[_LEFT] for node in module.graph.nodes if _computes(node)}
    lent = walk.taken.only_lent(node for some in parts.values() for node in some.network.nodes)
    return Split(module, parts, left, lent)


def _standing_alone(captured: Captured, walk: Walk) -> fx.GraphModule:
    """The graph as a module whose placeholders are the inputs alone: what depends on none is an attribute of it."""
    graph = captured.graph
    (returned,) = graph.find_nodes(op="output")
    returned.args = (captured.outputs,)
    module = fx.GraphModule(captured.root, graph)
    for i, node in enumerate([*graph.nodes]):
        node.meta[_VALUE] = value = walk.values.get(node)
        node.meta[_LEFT] = _left(node, walk) if _computes(node) else None
        if node.users and isinstance(value, Tensor) and node.op != "get_attr":
            setattr(module, f"constant_{i}", value)
            with graph.inserting_before(node):
                constant = graph.create_node("get_attr", f"constant_{i}")  # which is there
            node.replace_all_uses_with(constant, propagate_meta=True)
    graph.eliminate_dead_code()
    for node in captured.constants:
        if node.op == "placeholder" and not node.users:
            graph.erase_node(node)
    return module


class _Made(OperatorSupportBase):
    """What the partitioner asks: whether torch's operator became nodes of the kernels'."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk

    def is_node_supported(self, submodules: Mapping[str, nn.Module], node: fx.Node) -> bool:
        """Whether the walk made something of `node`."""
        return node in self._walk.made


def _worth(some: Partition, walk: Walk) -> bool:
    return any(isinstance(made.operator, _WORTH) for node in some.nodes for made in walk.made[node])


def _part(name: str, call: fx.Node, inner: fx.GraphModule, nodes: list[Node], choose: Choose) -> Part:
    """The part that `call` stands for; from now on it is called with the activations that `inner` is, each once."""
    given: dict[str, Activation] = {}
    arguments = []
    for placeholder, argument in zip(inner.graph.find_nodes(op="placeholder"), call.args, strict=True):
        value = placeholder.meta[_VALUE]
        if isinstance(value, Activation) and value.name not in given:
            given[value.name] = value
            arguments.append(argument)
    call.args = tuple(arguments)
    (returned,) = inner.graph.find_nodes(op="output")
    come: list[fx.Node] = [*returned.args[0]] if isinstance(returned.args[0], tuple) else [returned.args[0]]
    outputs = {node.meta[_VALUE].name: node.meta[_VALUE] for node in come}
    network = part(name, nodes, [*given.values()], [*outputs.values()])
    places = {name: place for place, name in enumerate(outputs)}
    results = [Result(places[n.meta[_VALUE].name], n.meta[_VALUE].shape, _is_last(n.meta["val"])) for n in come]
    return Part(ready(network, choose), tuple(results), sum(map(network.moved_bytes, network.nodes)))


def _is_last(form: Tensor) -> bool:
    if form.dim() != 5 or form.is_contiguous():
        return False
    return form.is_contiguous(memory_format=torch.channels_last_3d)


def _computes(node: fx.Node) -> bool:
    """Whether an operator of torch is called, and not one of several results taken."""
    return isinstance(node.target, torch._ops.OperatorBase)


def _left(node: fx.Node, walk: Walk) -> tuple[str, str, str]:
    """The operator's place in the network, its name, and why torch computes it, if it does."""
    why = "it alone gains nothing" if node in walk.made else walk.refused.get(node) or "what it reads is torch's"
    return walk.place(node), name_of(node), why
