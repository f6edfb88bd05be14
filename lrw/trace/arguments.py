"""What a network is called with when it is followed, and what people call the tensors that go in and come out."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_ACCEPTED = "accepted is a tensor, or a tuple of arguments"
_CONSTANT = (int, float, str, type(None))


def arguments(example_input: Any) -> tuple[Any, ...]:
    """All arguments of a network, for which `example_input` stands: a tensor, or a tuple of them.

    Raises ValueError for arguments that hold no tensors, other things than tensors, numbers and texts, and tensors that
    no kernel reads.
    """
    if not isinstance(example_input, Tensor | tuple):
        raise ValueError(f"example_input: a {type(example_input).__name__}; {_ACCEPTED}")
    for place, leaf in _placed(example_input):
        _check(f"example_input{place}", leaf)
    if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(example_input)):
        raise ValueError(f"example_input: holds no tensor; {_ACCEPTED}")
    return example_input if isinstance(example_input, tuple) else (example_input,)


def _check(name: str, x: object) -> None:
    if isinstance(x, _CONSTANT):
        return
    if not isinstance(x, Tensor):
        raise ValueError(f"{name}: a {type(x).__name__}; accepted are tensors, numbers, texts and None")
    if x.layout != torch.strided:
        raise ValueError(f"{name}: {x.layout}; accepted is torch.strided")
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"{name}: {x.dtype} on {x.device}; accepted is torch.float32 on the CPU")
    if x.dim() not in (2, 5) or x.numel() == 0:
        raise ValueError(f"{name}: shape {tuple(x.shape)}; accepted are [N, C, D, H, W] and [N, C], not empty")


def argument_names(net: nn.Module, args: tuple[Any, ...]) -> list[str]:
    """What the tensors in `args` are among the arguments of `net`, in order."""
    try:
        named: dict[Any, Any] = inspect.signature(net.forward).bind(*args).arguments
    except (TypeError, ValueError):  # a forward that says nothing of its arguments
        named = dict(enumerate(args))
    found = ((f"argument {name}{place}", leaf) for name, value in named.items() for place, leaf in _placed(value))
    return [name for name, leaf in found if isinstance(leaf, Tensor)]


def result_names(structure: pytree.TreeSpec) -> list[str]:
    """What the leaves of a network's result are in it, in order."""
    return [f"result{place}" for place, _ in _placed(pytree.tree_unflatten(range(structure.num_leaves), structure))]


def _placed(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of `tree`, each with its place as Python says it, or its number where a class does not say places."""
    try:
        return [(pytree.keystr(path), leaf) for path, leaf in pytree.tree_flatten_with_path(tree)[0]]
    except ValueError:
        return [(f" ({i})", leaf) for i, leaf in enumerate(pytree.tree_leaves(tree))]
