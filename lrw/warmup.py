"""Everything a network's first pass would otherwise wait for: kernels compiled or loaded, weights packed."""

import time

import torch
from torch import Tensor, nn

from lrw.layers import evaluating, input_sizes, winograd_layers
from lrw.nn import WinogradLayer
from lrw.typed import typed


@typed
def warmup(net: nn.Module, example_input: Tensor, *, backward: bool = False) -> float:
    """Make `net` ready for inputs like `example_input` (size, dtype, device); returns the seconds it took.

    Kernels are compiled once on a machine and kept on disk. `backward` readies the gradients too. Neither weights, nor
    their gradients, nor buffers change. Raises ValueError where the network holds no Winograd layer.
    """
    started = time.perf_counter()
    layers = winograd_layers(net)
    if backward:
        sizes = input_sizes(net, example_input)
        for name, layer in layers.items():
            _backward(layer, sizes[name], example_input)
    with torch.no_grad(), evaluating(net):
        for _ in range(2):  # weights that come a second time unchanged are packed for good
            net(example_input)
    return time.perf_counter() - started


def _backward(layer: WinogradLayer, size: tuple[int, int, int], like: Tensor) -> None:
    """One forward and backward pass of a layer on zeros, leaving no gradient behind."""
    x = like.new_zeros(like.shape[0], layer.in_channels, *size, requires_grad=True)
    with torch.enable_grad():
        y = layer(x)
        trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        torch.autograd.grad(y.sum(), [x, *trained], allow_unused=True)
