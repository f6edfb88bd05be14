"""A torch network, or a graph captured of one, becomes a `Network` of the kernels' operators."""

from collections.abc import Iterable, Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor, nn

from lrw import checks
from lrw.layers import evaluating, named_layers
from lrw.nn import WinogradLayer
from lrw.ops import TileLike
from lrw.trace.captured import Captured, exported
from lrw.trace.fuse import fused, needed
from lrw.trace.site import Activation, Nodes
from lrw.trace.tiles import tiled
from lrw.trace.walk import Walk, leaves
from lrw_kernels.choice.convolution import Choose, always, prior
from lrw_kernels.network.graph import Network, Node
from lrw_kernels.network.operators import Copy

FORMULAS = prior()


def trace(
    net: nn.Module,
    example_input: Tensor,
    name: str = "net",
    *,
    tile: TileLike | str = "auto",
    choose: Choose = FORMULAS,
) -> Network:
    """`net` in eval mode as a Network of `name` (a C identifier) for inputs of `example_input`'s sizes.

    example_input [N, C, D, H, W] or [N, C], float32 on the CPU like the network; one tensor goes in, one comes out.
    Convolutions that Winograd takes get `tile`, or where that is "auto" the one `choose` gives, by default lrw's own
    choice; Winograd layers keep theirs. Batch norm, additions and ReLU are fused into the convolutions before them.
    Nodes have the names of the modules they come from. `net` is not changed; what is written to weights of its linear
    layers later, the Network has too, of all others it has copies. Raises ValueError for arguments that are
    not accepted, for what torch.export refuses (with its reason), and for operators that cannot be exported: all of
    them, each with its place and shape.
    """
    _check(net, example_input)
    if isinstance(tile, str) and tile != "auto":
        raise ValueError(f"tile: {tile!r}; accepted are 'auto', an int, three ints or a Tile")
    with torch.no_grad(), evaluating(net):
        return network(exported(net, (example_input,)), name, choose if isinstance(tile, str) else always(tile))


def network(captured: Captured, name: str = "net", choose: Choose = FORMULAS) -> Network:
    """`captured`, of one input and one output, as a Network; the rest as in `trace`.

    Raises ValueError for other numbers of inputs and outputs, and for operators that cannot be exported.
    """
    with torch.no_grad(), np.errstate(all="ignore"):  # what is not finite is refused below
        walk = Walk(captured)
        if walk.reasons:
            raise ValueError(f"net: cannot be exported, because of {'; '.join(walk.reasons)}")
        _check_single(walk.inputs, "go in")
        _check_single(captured.outputs, "come out")
        nodes = [node for made in walk.made.values() for node in made]
        return ready(part(name, nodes, walk.inputs, walk.outputs()), choose)


def part(name: str, nodes: Iterable[Node], inputs: Sequence[Activation], outputs: Sequence[Activation]) -> Network:
    """The Network of those of `nodes` that `outputs` need; what is no node's comes out as a copy."""
    taken = [*needed(nodes, [output.name for output in outputs])]
    known, names = {node.name for node in taken}, Nodes(*(node.name for node in taken), *(i.name for i in inputs))
    come = list[str]()
    for output in outputs:
        if output.name not in known:
            taken.append(Node(names.name("output"), Copy(), (output.name,), output.size))
        come.append(output.name if output.name in known else taken[-1].name)
    return Network(name, {given.name: given.size for given in inputs}, tuple(taken), tuple(come))


def ready(network: Network, choose: Choose) -> Network:
    """`network` fused, its convolutions with tiles as `choose` has them.

    Raises ValueError for weights that are not finite once they are folded.
    """
    with np.errstate(all="ignore"):  # refused below
        made = fused(network)
    _check_finite(made)
    return tiled(made, choose)


def _check_single(tensors: tuple[object, ...], what: str) -> None:
    if len(tensors) != 1:
        raise ValueError(f"net: {len(tensors)} tensors {what}; accepted is one")


def _check(net: nn.Module, x: Tensor) -> None:
    checks.check_network(net)
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


def _check_finite(network: Network) -> None:
    """Raise ValueError for weights that are not finite: folding may have gone out of float32's range."""
    for node in network.nodes:
        for field in fields(node.operator):
            for value in leaves(getattr(node.operator, field.name)):
                if isinstance(value, np.ndarray) and not np.isfinite(value).all():
                    raise ValueError(f"{node.name}: its folded {field.name} holds NaN or infinity")
