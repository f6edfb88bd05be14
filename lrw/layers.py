"""Finding and replacing layers inside a network, and the sizes they see."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn

from lrw.nn import WinogradLayer
from lrw_kernels.winograd.tile import Triple

Kind = TypeVar("Kind", bound=nn.Module)


def named_layers(net: nn.Module, kind: type[Kind]) -> dict[str, Kind]:
    """Name -> module for every `kind` in `net`, in the order of `named_modules`; a shared module appears once."""
    return {name: module for name, module in net.named_modules() if isinstance(module, kind)}


def winograd_layers(net: nn.Module) -> dict[str, WinogradLayer]:
    """Name -> Winograd layer of any kind. Raises ValueError where there is none."""
    layers = named_layers(net, WinogradLayer)
    if not layers:
        raise ValueError("net: holds no Winograd layer; convert it with lrw.to_winograd first")
    return layers


def replace_layers(net: nn.Module, new: dict[str, nn.Module]) -> nn.Module:
    """Put `new` modules at their names, wherever the old ones are used; returns the network (or what replaces it)."""
    if "" in new:
        return new[""]
    swaps = {id(net.get_submodule(name)): module for name, module in new.items()}
    for parent in list(net.modules()):
        for key, child in parent._modules.items():  # named_children() would pass over a module's second name
            if id(child) in swaps:
                parent._modules[key] = swaps[id(child)]
    return net


def input_sizes(net: nn.Module, example_input: Tensor, kind: type[nn.Module] = WinogradLayer) -> dict[str, Triple]:
    """Name -> spatial input size [3] of each layer of `kind` for one forward pass of `example_input`."""
    sizes: dict[str, Triple] = {}

    def note(name: str, module: nn.Module, x: Tensor) -> None:
        d, h, w = x.shape[2:]
        sizes[name] = (d, h, w)

    look_at_inputs(net, example_input, kind, note)
    return sizes


def look_at_inputs(
    net: nn.Module, example_input: Tensor, kind: type[nn.Module], look: Callable[[str, nn.Module, Tensor], None]
) -> None:
    """Call `look(name, layer, its input)` for each layer of `kind` in one pass of `example_input` in eval mode."""
    handles = []
    for name, layer in named_layers(net, kind).items():

        def hook(module: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
            look(name, module, args[0])

        handles.append(layer.register_forward_pre_hook(hook))
    try:
        with torch.no_grad(), evaluating(net):
            net(example_input)
    finally:
        for handle in handles:
            handle.remove()


class evaluating:
    """`with evaluating(net):` sets eval mode and puts every module's own mode back."""

    def __init__(self, net: nn.Module) -> None:
        self._modes = list(_modes(net))
        self._net = net

    def __enter__(self) -> nn.Module:
        return self._net.eval()

    def __exit__(self, *_: object) -> None:
        for module, mode in self._modes:
            module.training = mode


def _modes(net: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
    for module in net.modules():
        yield module, module.training
