"""Convolutions go to the Winograd domain, each with the tile that is chosen for it, once all is fused that can be."""

from dataclasses import replace

from lrw_kernels.choice.convolution import Choose, Convolution
from lrw_kernels.network.graph import Network, Node, Size
from lrw_kernels.network.operators import Direct, Winograd
from lrw_kernels.network.transformed import Transformed

UNIT = (1, 1, 1)


def tiled(network: Network, choose: Choose) -> Network:
    """The network with convolutions of stride 1, dilation 1 and one group as Winograd convolutions, where `choose` has
    a tile for them."""
    return replace(network, nodes=tuple(with_tile(n, network.size(n.inputs[0]), choose) for n in network.nodes))


def with_tile(node: Node, size: Size, choose: Choose) -> Node:
    """`node`, whose first input has `size`, as one of these."""
    of = node.operator
    if not isinstance(of, Direct) or (of.stride, of.dilation, of.groups) != (UNIT, UNIT, 1):
        return node
    kd, kh, kw, cin, cout = of.weight.shape
    tile = choose(Convolution((kd, kh, kw), cin, cout, size[0], size[1:4], of.padding))
    if tile is None:
        return node
    every = ((cout, tuple(range(tile.positions))),)
    return replace(node, operator=Winograd(tile, of.padding, every, Transformed(of.weight, tile), of.bias, of.after))
