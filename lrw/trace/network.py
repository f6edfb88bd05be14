"""A torch network, or a graph captured of one, becomes a `Network` of the kernels' operators."""

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, fx, nn

from lrw import checks
from lrw.layers import evaluating, named_layers
from lrw.nn import WinogradLayer
from lrw.ops import TileLike
from lrw.trace.arguments import argument_names, arguments, result_names
from lrw.trace.captured import Captured, exported
from lrw.trace.fuse import fused, needed
from lrw.trace.site import Activation, Nodes
from lrw.trace.tiles import tiled
from lrw.trace.walk import Walk, leaves
from lrw_kernels.choice.convolution import Choose, always, prior
from lrw_kernels.network.graph import Network, Node
from lrw_kernels.network.operators import Copy
from lrw_kernels.untrusted import shown

FORMULAS = prior()


def trace(
    net: nn.Module,
    example_input: Any,
    name: str = "net",
    *,
    tile: TileLike | str = "auto",
    choose: Choose = FORMULAS,
) -> Network:
    """`net` in eval mode as a Network of `name` (a C identifier) for inputs of `example_input`'s sizes.

    example_input: the tensor `net` is called with, [N, C, D, H, W] or [N, C] and float32 on the CPU like the network,
    or a tuple of all its arguments, which may be tuples, lists and dictionaries of such tensors, and of numbers, which
    are constants. The Network's inputs are the tensors in them, its outputs those in the result, in torch's order; one
    that is there twice counts twice, what is no tensor does not.
    Convolutions that Winograd takes get `tile`, or where that is "auto" the one `choose` gives, by default lrw's own
    choice; Winograd layers keep theirs. Batch norm, additions and ReLU are fused into the convolutions before them.
    Nodes have the names of the modules they come from. `net` is not changed; what is written to weights of its linear
    layers later, the Network has too, of all others it has copies. Raises ValueError for arguments that are
    not accepted, for what torch.export refuses (with its reason), and for operators that cannot be exported: all of
    them, each with its place and shape.
    """
    _check(net)
    args = arguments(example_input)
    if isinstance(tile, str) and tile != "auto":
        raise ValueError(f"tile: {shown(tile)}; accepted are 'auto', an int, three ints or a Tile")
    with torch.no_grad(), evaluating(net):
        made = network(exported(net, args), name, choose if isinstance(tile, str) else always(tile))
    return replace(made, origins=(*argument_names(net, args), *made.origins[len(made.inputs) :]))


def network(captured: Captured, name: str = "net", choose: Choose = FORMULAS) -> Network:
    """`captured` as a Network; the rest as in `trace`.

    Raises ValueError where no tensor goes in or comes out, for one that comes out and does not depend on the inputs,
    and for operators that cannot be exported.
    """
    with torch.no_grad(), np.errstate(all="ignore"):  # what is not finite is refused below
        walk = Walk(captured)
        if walk.reasons:
            raise ValueError(f"net: cannot be exported, because of {'; '.join(walk.reasons)}")
        given = zip(captured.inputs, walk.inputs, strict=True)
        inputs = {f"argument {node.name}": value for node, value in given if _is_tensor(node)}
        outputs = _results(captured, walk)
        for tensors, what in ((inputs, "goes in"), (outputs, "comes out")):
            if not tensors:
                raise ValueError(f"net: no tensor {what}; accepted is one at least")
        nodes = [node for made in walk.made.values() for node in made]
        made = part(name, nodes, [*inputs.values()], [*outputs.values()])
        return ready(replace(made, origins=(*inputs, *outputs)), choose)


def part(name: str, nodes: Iterable[Node], inputs: Sequence[Activation], outputs: Sequence[Activation]) -> Network:
    """The Network of those of `nodes` that `outputs` need; what is no node's, or comes out once more, is a copy."""
    taken = [*needed(nodes, [output.name for output in outputs])]
    known, names = {node.name for node in taken}, Nodes(*(node.name for node in taken), *(i.name for i in inputs))
    come = list[str]()
    for output in outputs:
        alone = output.name in known and output.name not in come
        if not alone:
            taken.append(Node(names.name("output"), Copy(), (output.name,), output.size))
        come.append(output.name if alone else taken[-1].name)
    return Network(name, {given.name: given.size for given in inputs}, tuple(taken), tuple(come))


def ready(network: Network, choose: Choose) -> Network:
    """`network` fused, its convolutions with tiles as `choose` has them.

    Raises ValueError for weights that are not finite once they are folded.
    """
    with np.errstate(all="ignore"):  # refused below
        made = fused(network)
    _check_finite(made)
    return tiled(made, choose)


def _results(captured: Captured, walk: Walk) -> dict[str, Activation]:
    """The tensors that come out, by what they are. Raises ValueError for one that does not depend on the inputs."""
    structure, found = captured.structure, dict[str, Activation]()
    names = result_names(structure) if structure else [f"result[{i}]" for i in range(len(captured.outputs))]
    for name, given in zip(names, captured.outputs, strict=True):
        if _is_tensor(given):
            value = walk.values.get(given)
            if not isinstance(value, Activation):
                raise ValueError(f"net: its {name} does not depend on the input; accepted are results that do")
            found[name] = value
    return found


def _is_tensor(given: object) -> TypeGuard[fx.Node]:
    """Whether a tensor goes in or comes out, and not a number or nothing."""
    return isinstance(given, fx.Node) and isinstance(given.meta.get("val"), Tensor)


def _check(net: nn.Module) -> None:
    checks.check_network(net)
    checks.check_unwrapped(net)
    for name, t in (*net.named_parameters(), *net.named_buffers()):
        if t.is_floating_point() and (t.dtype != torch.float32 or t.device.type != "cpu"):
            raise ValueError(f"net: {name} is {t.dtype} on {t.device}; accepted is torch.float32 on the CPU")
        if not bool(torch.isfinite(t).all()):
            raise ValueError(f"{name}: weights hold NaN or infinity; accepted are finite weights")
    for name, layer in named_layers(net, WinogradLayer).items():
        if layer.geometry.rectified:
            raise ValueError(f"net: {name!r} is a Winograd-ReLU layer; this version exports layers without")


def _check_finite(network: Network) -> None:
    """Raise ValueError for weights that are not finite: folding may have gone out of float32's range."""
    for node in network.nodes:
        for field in fields(node.operator):
            for value in leaves(getattr(node.operator, field.name)):
                if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                    raise ValueError(f"{node.name}: its folded {field.name} holds NaN or infinity")
