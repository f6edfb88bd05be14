"""How far a torch network may be off in float32, operator by operator as torch.export follows it: those that have
kernels err as their nodes do, torch's own as their sums do."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from lrw.layers import evaluating
from lrw.trace.captured import Captured, exported
from lrw.trace.site import Activation
from lrw.trace.tiles import with_tile
from lrw.trace.walk import Walk
from lrw_kernels.choice.convolution import Choose
from lrw_kernels.network.graph import Node
from lrw_kernels.winograd.error import TAIL
from verify.programs.errors import DRAWS, EPS, node_errors
from verify.programs.interpreter import COMPUTE, double, perturbed

Args = tuple[Tensor, ...]
TORCHS: dict[str, Callable[..., list[Tensor]]] = {  # as `node_errors`, of the result and the arguments
    "aten::cumsum": lambda y, x, axis: [torch.full_like(y, y.shape[axis] ** 0.5 * float(y.abs().max()))],
    **dict.fromkeys(("aten::topk", "aten::roll", "aten::slice_scatter"), lambda y, *_: []),
}


def expected(net: nn.Module, args: Args, choose: Choose) -> list[tuple[Tensor, Tensor]]:
    """What `net` gives in float64, each tensor [N, C, ...] with how far float32 may be off in each channel [C].

    Random errors as large as those of each operator and stored number are put in where they arise, with the tiles that
    `choose` gives; what they do to a tensor is their root mean square over draws, at the worst place of a channel,
    taken to the tail of many places.
    """
    exact = pytree.tree_leaves(double(net)(*(x.double() for x in args)))
    with torch.no_grad(), evaluating(net):
        run = _Float64(captured := exported(net, args), Walk(captured), choose)
        right, generator = run.computed(args), np.random.default_rng(0)
        draws = [run.computed(args, generator) for _ in range(DRAWS)]
    found = []
    for i, y in enumerate(exact):
        mean = torch.stack([(draw[i] - right[i]).square() for draw in draws]).mean(0)
        found.append((y, TAIL * mean.transpose(0, 1).flatten(1).amax(1).sqrt()))
    return found


class _Float64:
    """Runs a captured graph in float64: operators as the nodes that a walk made of them, before any are fused."""

    def __init__(self, captured: Captured, walk: Walk, choose: Choose) -> None:
        self._captured, self._walk, self._choose = captured, walk, choose

    def computed(self, args: Args, generator: np.random.Generator | None = None) -> list[Tensor]:
        """The tensors that come out, with random errors where there is a `generator`."""
        values: dict[fx.Node, Any] = dict(zip(self._captured.inputs, (x.double() for x in args), strict=True))
        inner: dict[str, Tensor] = {}  # by the names nodes have, [N, C, D, H, W]
        for node in self._captured.graph.nodes:
            worth = self._walk.values.get(node)
            if node in self._walk.made:
                for made in self._walk.made[node]:
                    inputs = [inner[name] for name in made.inputs]
                    n, c, *outer = inputs[0].shape
                    chosen = with_tile(made, (n, outer[0], outer[1], outer[2], c), self._choose)
                    inner[made.name] = _node(chosen, inputs, generator)
                values[node] = pytree.tree_map_only(Activation, lambda a: inner[a.name].reshape(a.shape), worth)
            elif isinstance(worth, Tensor):
                values[node] = worth.double() if worth.is_floating_point() else worth
            elif node in self._walk.refused:
                values[node] = _torchs(node, values, generator)
            if isinstance(worth, Activation) and isinstance(y := values[node], Tensor) and y.dim() in (2, 5):
                inner.setdefault(worth.name, y.reshape(*y.shape, *[1] * (5 - y.dim())))
        return [values[node] for node in self._captured.outputs if isinstance(node, fx.Node)]


def _node(node: Node, inputs: list[Tensor], generator: np.random.Generator | None) -> Tensor:
    operator = node.operator if generator is None else perturbed(node.operator, generator)
    y = COMPUTE[type(operator)](operator, node.size, *inputs)
    return y if generator is None else _off(y, node_errors(node, y, *inputs), generator)


def _torchs(node: fx.Node, values: dict[fx.Node, Any], generator: np.random.Generator | None) -> Any:
    args = fx.map_arg(node.args, values.__getitem__)
    y: Any = node.target(*args, **node.kwargs)  # type: ignore[operator]
    if generator is None or not isinstance(node.target, torch._ops.OpOverload):
        return y
    first, *rest = y if isinstance(y, tuple) else (y,)
    first = _off(first, TORCHS[node.target._schema.name](first, *args), generator)
    return (first, *rest) if isinstance(y, tuple) else first


def _off(y: Tensor, errors: list[Tensor], generator: np.random.Generator) -> Tensor:
    for field in errors:
        y = y + EPS * field * torch.from_numpy(generator.standard_normal(field.shape))
    return y
