"""Where an operator of a torch network is met, and what becomes of it: nodes of the kernels' network."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor

from lrw.trace.taken import Taken
from lrw.unchanged import PLAIN
from lrw_kernels.network.graph import Node, Size
from lrw_kernels.network.operators import Array, Operator
from lrw_kernels.winograd.tile import Triple


class Refused(Exception):
    """An operator cannot be exported; the text says why."""


@dataclass(frozen=True)
class Activation:
    """What node `name` computes, which is a tensor of `shape` in the torch network."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> Size:
        """Its size [N, D, H, W, C] for the kernels; raises Refused for shapes other than [N, C, D, H, W] and [N, C]."""
        size = size_of(self.shape)
        if size is None:
            raise Refused(f"shape {list(self.shape)}; accepted are [N, C, D, H, W] and [N, C]")
        return size


STAND_IN = Activation("", ())
"""Stands for what is not there because of a refusal, and is no tensor of a shape that networks have."""

Value = Tensor | Activation | None | tuple["Value", ...]


class Nodes:
    """The network so far, whose `inputs` have names of their own."""

    def __init__(self, *inputs: str) -> None:
        self._nodes: list[Node] = []
        self._names = set(inputs)

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes)

    def name(self, wanted: str) -> str:
        """`wanted`, or what is nearest to it and not taken yet."""
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}@{count}"
        self._names.add(name)
        return name

    def add(self, node: Node) -> None:
        """Append `node`, which only reads nodes that are there."""
        self._nodes.append(node)


@dataclass(frozen=True)
class Site:
    """One call of an operator: the `name` its node gets, the `shape` torch gives its result, and what keeps account of
    memory."""

    nodes: Nodes
    name: str
    shape: tuple[int, ...]
    taken: Taken = field(default_factory=Taken)

    def add(self, operator: Operator, *inputs: Activation) -> Activation:
        """A node that computes `operator` of `inputs`, as this call's result."""
        name = self.nodes.name(self.name)
        result = Activation(name, self.shape)
        self.nodes.add(Node(name, operator, tuple(i.name for i in inputs), result.size))
        return result

    def in_place(self, t: Tensor) -> Array:
        """The numbers of a constant of the call where torch holds them, whatever will be written there; a copy where
        they do not lie as an array's."""
        if type(t) not in PLAIN or t.dtype != torch.float32 or not t.is_cpu or not t.is_contiguous() or t.is_neg():
            return array(t)
        self.taken.lend(t)
        numbers: Array = t.detach().numpy()
        return numbers


def size_of(shape: Sequence[int]) -> Size | None:
    """[N, D, H, W, C] of a torch shape [N, C, D, H, W], or [N, C] with ones behind; None for others."""
    if len(shape) == 5:
        n, c, d, h, w = shape
        return n, d, h, w, c
    return (shape[0], 1, 1, 1, shape[1]) if len(shape) >= 2 and prod(shape[2:]) == 1 else None


def volume(x: object) -> tuple[Activation, Size]:
    """`x`, which must be an activation [N, C, D, H, W], and its size."""
    source = activation(x)
    if len(source.shape) != 5:
        raise Refused(f"its input is of shape {list(source.shape)}; accepted is [N, C, D, H, W]")
    return source, source.size


def activation(x: object) -> Activation:
    """`x` as the activation it must be; Refused for constants."""
    if not isinstance(x, Activation):
        raise Refused("a constant where activations are accepted")
    return x


def constant(t: object, name: str) -> Tensor:
    """`t` as the constant tensor it must be; Refused, with the argument's `name`, where it depends on the input."""
    if not isinstance(t, Tensor):
        raise Refused(f"its {name} is computed from the input; accepted are constants")
    return t


def array(t: Tensor) -> Array:
    """Numbers as the exported network holds them: a copy, because networks are trained on."""
    numbers: Array = t.detach().to(torch.float32, memory_format=torch.contiguous_format, copy=True).numpy()
    return numbers


def vector(t: object, name: str) -> Array | None:
    """The constant `t` [C] as an array, or None where there is none."""
    return None if t is None else array(constant(t, name))


def three(value: Any) -> Triple:
    """Three ints (d, h, w) of any form torch takes for them: one number, one in a list, or three."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    d, h, w = values * 3 if len(values) == 1 else values
    return int(d), int(h), int(w)
