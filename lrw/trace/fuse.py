"""Fewer nodes for the same function: each pass takes a network and gives one.

What a convolution does is: convolve, add the bias, add a second input if there is one, apply a function if there is
one; so does a linear layer, with its products, and a norm, which may also add its second input at last.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

import numpy as np

from lrw_kernels.network.graph import Network, Node, Size
from lrw_kernels.network.operators import (
    Affine,
    Array,
    Binary,
    Direct,
    Followed,
    Gather,
    Linear,
    Normalise,
    Operator,
    Pointwise,
    Transposed,
    Winograd,
)
from lrw_kernels.winograd.tile import MAX_PADDING, Triple

Merge = Callable[[Node, Node], Operator | None]


def fused(network: Network) -> Network:
    """The network after all passes, in the order in which one makes way for the next."""
    placed = fold_padding(fold_places(network))
    return fold_addition(fold_functions(fold_affine(placed)))


def needed(nodes: Iterable[Node], outputs: Collection[str]) -> tuple[Node, ...]:
    """The nodes that those called `outputs` depend on, and they."""
    wanted, kept = {*outputs}, []
    for node in reversed(tuple(nodes)):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return tuple(reversed(kept))


def fold_places(network: Network) -> Network:
    """Make one table of those of two nodes that only take planes, rows and pixels."""
    return _merged(network, _taken_twice)


def fold_padding(network: Network) -> Network:
    """Make zeros around a volume, as many on both sides of an axis, the padding of the convolution behind them."""
    pads = {node.name: _zeros_around(node.operator, network.size(node.inputs[0])) for node in network.nodes}
    return _merged(
        network, lambda read, node: _with_padding(node, pads[read.name]) if node.inputs[0] == read.name else None
    )


def fold_affine(network: Network) -> Network:
    """Fold a scale and a shift by channel, such as batch norm's, into the weights of the convolution or linear layer
    before them."""
    return _merged(network, _scaled)


def fold_addition(network: Network) -> Network:
    """Make an addition the second input of the later of two convolutions, linear layers or norms, or of the one there
    is, with the function behind the sum: of two inputs of the same size."""
    nodes, size = network.nodes, network.size
    whole = {node.name for node in nodes if all(size(name) == node.size for name in node.inputs)}
    return _merged(network, lambda read, node: _with_residual(read, node) if node.name in whole else None)


def fold_functions(network: Network) -> Network:
    """Fold a function into the convolution, linear layer, norm, affine map, sum or product before it."""
    return _merged(network, _followed)


def _merged(network: Network, merge: Merge) -> Network:
    """Each node merged into one that it reads and nobody else does, where `merge(read, node)` knows an operator for
    both: the later one first. It goes where the node was, so that all inputs are there."""
    readers = Counter((*network.outputs, *(name for node in network.nodes for name in node.inputs)))
    done: dict[str, Node] = {}
    now: dict[str, str] = {}
    for node in network.nodes:
        node = replace(node, inputs=tuple(now.get(name, name) for name in node.inputs))
        places = {name: place for place, name in enumerate(done) if name in node.inputs and readers[name] == 1}
        for name in sorted(places, key=places.__getitem__, reverse=True):
            read = done[name]
            operator = merge(read, node)
            if operator is not None:
                del done[name]
                inputs = read.inputs + tuple(other for other in node.inputs if other != name)
                done[name] = Node(name, operator, inputs, node.size)
                now[node.name], readers[name] = name, readers[node.name]
                break
        else:
            done[node.name] = node
    return replace(network, nodes=tuple(done.values()), outputs=tuple(now.get(name, name) for name in network.outputs))


def _taken_twice(read: Node, node: Node) -> Operator | None:
    first, then = read.operator, node.operator
    if not isinstance(first, Gather) or not isinstance(then, Gather):
        return None
    outside = [any(-1 in axis for axis in of.index) for of in (first, then)]
    if all(outside) and first.value != then.value:
        return None
    d, h, w = (
        tuple(inner[place] if place >= 0 else -1 for place in outer)
        for inner, outer in zip(first.index, then.index, strict=True)
    )
    return Gather((d, h, w), then.value if outside[1] else first.value)


def _zeros_around(operator: Operator, size: Size) -> Triple | None:
    """The widths of an operator that does nothing but put zeros around a volume of `size`; None for others."""
    if not isinstance(operator, Gather) or operator.value != 0:
        return None
    d, h, w = ((len(index) - n) // 2 for index, n in zip(operator.index, size[1:4], strict=True))
    for index, width, n in zip(operator.index, (d, h, w), size[1:4], strict=True):
        if index != (-1,) * width + tuple(range(n)) + (-1,) * width:
            return None
    return d, h, w


def _with_padding(node: Node, more: Triple | None) -> Operator | None:
    operator = node.operator
    if more is None or not isinstance(operator, Direct | Winograd):
        return None
    d, h, w = (a + b for a, b in zip(operator.padding, more, strict=True))
    return replace(operator, padding=(d, h, w)) if max(d, h, w) <= MAX_PADDING else None


def _scaled(read: Node, node: Node) -> Operator | None:
    first, then = read.operator, node.operator
    if not isinstance(then, Affine) or len(read.inputs) > 1:
        return None
    if isinstance(first, Affine) and first.after is None:
        return Affine(_product(first.scale, then.scale), _sum(first.shift, then), then.after)
    if not isinstance(first, Winograd | Direct | Transposed | Linear) or first.after is not None:
        return None
    first = replace(first, bias=_sum(first.bias, then), after=then.after)
    if isinstance(first, Winograd):
        ends = np.cumsum([channels for channels, _ in first.blocks])[:-1]
        scales = np.split(then.scale, ends)
        weights = tuple(_product(u, scale) for u, scale in zip(first.weights, scales, strict=True))
        return replace(first, weights=weights)
    if isinstance(first, Linear):
        return replace(first, weight=np.ascontiguousarray(_product(first.weight.T, then.scale).T))
    return replace(first, weight=_product(first.weight, then.scale))


def _product(weights: Array, scale: Array) -> Array:
    """Weights [..., Cout] times a scale [Cout], rounded once; themselves where the scale is 1 throughout."""
    return weights if (scale == 1).all() else weights * scale


def _sum(bias: Array | None, affine: Affine) -> Array:
    before = 0.0 if bias is None else bias.astype(np.float64)
    return (before * affine.scale + affine.shift).astype(np.float32)


def _with_residual(read: Node, node: Node) -> Operator | None:
    first, addition = read.operator, node.operator
    if not isinstance(addition, Binary) or addition.kind != "add" or len(read.inputs) > 1:
        return None
    if not isinstance(first, Winograd | Direct | Linear | Normalise) or (first.after and addition.after):
        return None
    if first.after is None:
        return replace(first, after=addition.after)
    return replace(first, late=True) if isinstance(first, Normalise) else None


def _followed(read: Node, node: Node) -> Operator | None:
    first, then = read.operator, node.operator
    if not isinstance(first, Followed) or not isinstance(then, Pointwise) or first.after is not None:
        return None
    return replace(first, after=then)
