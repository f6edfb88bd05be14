"""torch.export's graph without operators that write to what they read, where the graph alone says that this is so.

`run_decompositions` follows the whole network once more for that, half of the time a network takes to be followed. In
most networks all that is written to is what a convolution or norm has just made (ReLU in place, a residual added in
place), and nobody has another view of it: then the operator that makes something new gives the same.
"""

import torch
from torch import Tensor, fx
from torch._C import DispatchKey
from torch._ops import OpOverload

from lrw.trace.table import TABLE

# Composite operators, of which schemas do not say it, whose results are memory of their own.
_NEW = frozenset(
    f"aten::{name}"
    for name in "batch_norm conv3d conv_transpose3d group_norm instance_norm linear matmul max_pool3d softmax".split()
)

_DROPOUT = frozenset(f"aten::{name}" for name in "dropout feature_dropout alpha_dropout feature_alpha_dropout".split())
_ALIAS = torch.ops.aten.alias.default


def name_dropout(graph: fx.Graph) -> None:
    """Call dropout that drops nothing (eval mode) what it is, another name of its input. torch's own way makes a copy,
    which is another thing where either is written to."""
    for node in graph.nodes:
        target = node.target
        if isinstance(target, OpOverload) and target._schema.name in _DROPOUT and not _trains(target, node):
            node.target, node.args, node.kwargs = _ALIAS, (node.args[0],), {}


def make_functional(graph: fx.Graph) -> bool:
    """Replace operators of `graph` that write to their input by those that do not, which is changed in place; returns
    False, with the graph of no use any more, where it cannot be told whether that gives the same. Other names of a
    tensor go, too."""
    at = {node: i for i, node in enumerate(graph.nodes)}
    for node in [node for node in graph.nodes if node.op == "call_function"]:
        target = node.target
        if not isinstance(target, OpOverload):
            return False
        if target is _ALIAS:
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
            continue
        if not target._schema.is_mutable:
            if _is_composite(target) and (target._schema.name not in TABLE or _trains(target, node)):
                return False  # what it does in operators that are known, torch finds out
            continue
        pure, written = _without_writing(target), node.args[0]
        if pure is None or not isinstance(written, fx.Node) or not _is_alone(written, node, at):
            return False
        with graph.inserting_before(node):
            new = graph.call_function(pure, node.args, node.kwargs)
        new.meta, at[new] = node.meta, at[node]
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        written.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: at[user] > at[new])  # type: ignore[misc]
    return True


def _without_writing(target: OpOverload) -> OpOverload | None:
    """The operator of the table that makes a new tensor of what `target` writes to its first argument."""
    name = target._schema.name.removesuffix("_")
    if name not in TABLE or not name.startswith("aten::") or name == target._schema.name:
        return None
    packet = getattr(torch.ops.aten, name.removeprefix("aten::"), None)
    return getattr(packet, target._overloadname, None)


def _is_alone(written: fx.Node, by: fx.Node, at: dict[fx.Node, int]) -> bool:
    """Whether nobody but `by` and those after it can see that `written` changes, and types stay what they are."""
    values = [n.meta.get("val") for n in by.all_input_nodes]
    if not all(isinstance(v, Tensor) and v.dtype.is_floating_point for v in values):
        return False
    same = len({v.dtype for v in values if isinstance(v, Tensor)}) == 1
    before = [user for user in written.users if at[user] < at[by]]
    return same and all(map(_makes_new, (written, *before)))


def _makes_new(node: fx.Node) -> bool:
    """Whether what `node` gives shares no memory with what it reads."""
    target = node.target
    if not isinstance(target, OpOverload):
        return False
    if _is_composite(target):
        return target._schema.name in _NEW
    return all(of.alias_info is None for of in target._schema.returns)


def _trains(target: OpOverload, node: fx.Node) -> bool:
    """Whether the call draws numbers, or writes to running statistics, of which a composite operator's schema does not
    say either."""
    given = zip((argument.name for argument in target._schema.arguments), node.args, strict=False)
    return any(value is True for name, value in (*given, *node.kwargs.items()) if name in ("train", "training"))


def _is_composite(target: OpOverload) -> bool:
    return target.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)
