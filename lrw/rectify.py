"""Winograd-ReLU: activations made sparse where they are multiplied (Liu, Pool, Han, Dally, arXiv 1802.06367).

A layer computes A^T [U . ReLU(B^T x B)] A, and the ReLU that came before it in space goes. That is another network, to
be trained as such: no spatial network's function can be carried over.
"""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from lrw import checks
from lrw.backends import composed
from lrw.layers import look_at_calls, replace_layers
from lrw.nn import MovedReLU, WinogradLayer
from lrw.typed import typed


@typed
def rectify(net: nn.Module, relus: Mapping[str, str]) -> nn.Module:
    """Move ReLUs of `net` into the domain of the Winograd layers that follow them, in place; returns `net`.

    `relus` is layer name -> name of the nn.ReLU module whose work the layer takes over (pooling may lie between); that
    becomes an identity, which `lrw.save` remembers too. A plain state_dict does not say that layers are rectified.
    Raises ValueError, with nothing changed, for names that are not such modules.
    """
    checks.check_unwrapped(net)
    modules = dict(net.named_modules())
    for layer, relu in relus.items():
        if not isinstance(modules.get(layer), WinogradLayer):
            raise ValueError(f"relus: {layer!r} is no Winograd layer of this network")
        if not isinstance(modules.get(relu), nn.ReLU):
            raise ValueError(f"relus: {relu!r} is no nn.ReLU of this network")
    for name in relus:
        layer = modules[name]
        layer.geometry = replace(layer.geometry, rectified=True)
    return replace_layers(net, {relu: MovedReLU() for relu in relus.values()})


@typed
def activation_density(net: nn.Module, example_input: Tensor) -> dict[str, float]:
    """Share of the values each convolution multiplies that are not zero, by name, for one pass of `example_input`.

    Of a Winograd layer those are its transformed inputs at the kept positions, rectified or not; of an nn.Conv3d its
    inputs.
    """
    densities: dict[str, float] = {}

    def measure(name: str, module: nn.Module, x: Tensor, y: Tensor) -> None:
        if isinstance(module, WinogradLayer):
            x = composed.domain_input(x.permute(0, 2, 3, 4, 1), module.geometry)
        densities[name] = float((x != 0).double().mean())

    for kind in (WinogradLayer, nn.Conv3d):
        look_at_calls(net, example_input, kind, measure)
    return densities
