"""How much each place and each output channel of a layer counts: by what an error there does to the network's answer.

A network of class scores answers with the likeliest class, of a sample or of each voxel. Errors count where that is in
question: a layer's outputs weigh by the gradient of the answer's logarithm, as in a diagonal of Fisher's information,
which needs no labels. A squared error weighs by the root of the squared gradient, between all alike and the whole of it
(tried: bench/notes/pruning.md). The use for columns is ours.
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.layers import copied, evaluating
from lrw.pruning.calibration import Calibration, Draw
from lrw.pruning.tiles import Tiles, outputs_at

LEAST = 1e-4  # of the mean: what counts for nothing now may count for something in other samples


class Weight(NamedTuple):
    """A layer's: what errors at each tile that is looked at [tiles] and in each output channel [Cout] are multiplied
    with; the mean of their squares is one."""

    tiles: Tensor
    channels: Tensor

    def on(self, tiles: Tiles, wanted: Tensor) -> None:
        """Weigh what is seen and wanted [m^3, tiles, Cout] at each tile, in place."""
        for of in (tiles.v, wanted):
            of.mul_(self.tiles.to(of)[:, None])


def gives_scores(net: nn.Module, calibration: Calibration) -> bool:
    """Whether `net` gives something that can be class scores: a floating [N, classes, ...] of two classes or more."""
    return bool(_scores(next(iter(calibration.first().run(net)))))


def weights(
    net: nn.Module, calibration: Calibration, draws: Sequence[Draw], scores: bool | None = None
) -> dict[str, Weight]:
    """Of the layers of `net` that `draws` look at; of none unless it gives class `scores` (None: where it seems so).

    One pass and its gradient for each batch. Layers that no gradient reaches are left out.
    """
    if not (gives_scores(net, calibration) if scores is None else scores):
        return {}
    net = copied(net) if _inferred(net) else net
    by_name = {own.name: own for own in draws}
    tiles: dict[str, list[Tensor]] = {name: [] for name in by_name}
    channels: dict[str, Any] = dict.fromkeys(by_name, 0.0)
    outputs: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Any:
        def seen(module: nn.Module, args: Any, y: Tensor) -> Tensor:
            y = y if y.requires_grad else y.detach().requires_grad_()
            outputs.append((name, y))
            return y.clone()  # later operations may write to it

        return seen

    handles = [net.get_submodule(name).register_forward_hook(hook(name)) for name in by_name]
    try:
        with torch.enable_grad(), evaluating(net):
            for batch, marks in zip(calibration.batches, calibration.marks, strict=True):
                outputs.clear()
                doubt = _doubt(calibration.forward(net, pytree.tree_map_only(Tensor, _recorded, batch)), marks)
                if not isinstance(doubt, Tensor) or not doubt.requires_grad:
                    return {}
                found = torch.autograd.grad(doubt, [y for _, y in outputs], allow_unused=True)
                calls = dict.fromkeys(by_name, 0)
                for (name, y), gradient in zip(outputs, found, strict=True):
                    g = _each(torch.zeros_like(y) if gradient is None else gradient)
                    chosen = by_name[name].chosen(marks, calls[name], len(y), y.shape[2:])
                    at = outputs_at(g.sum(1, keepdim=True), None, by_name[name].geometry.tile, chosen)
                    tiles[name].append(at.sum((0, 2)))
                    channels[name] = channels[name] + g.sum((0, 2, 3, 4))
                    calls[name] += 1
    finally:
        for handle in handles:
            handle.remove()
    joined = {name: torch.cat(parts) for name, parts in tiles.items()}
    return {
        name: Weight(_weight(squares, 0.25), _weight(channels[name], 0.5))
        for name, squares in joined.items()
        if float(squares.sum()) > 0
    }


def _inferred(net: nn.Module) -> bool:
    """Whether it was made in inference mode: then no gradient goes through it."""
    return any(t.is_inference() for t in (*net.parameters(), *net.buffers()))


def _recorded(t: Tensor) -> Tensor:
    """A tensor that a gradient may be computed with."""
    return t.clone() if t.is_inference() else t


def _scores(given: Any) -> list[Tensor]:
    """Of what a network gives, all that can be class scores [N, classes, ...]."""
    leaves = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point() and leaf.dim() >= 2 and leaf.shape[1] >= 2]


def _doubt(given: Any, marks: Sequence[int]) -> Any:
    """The answer's negative logarithm, added up with a random sign for each sample and voxel, which follows from the
    samples' `marks`: so that gradients of different voxels add up as their squares do."""
    total: Any = 0.0
    for scores in _scores(given):
        doubt = -scores.float().log_softmax(1).amax(1)  # [N, ...]
        seeds = marks if len(doubt) == len(marks) else [sum(marks)] * len(doubt)
        total = total + sum((_signs(seed, of) * of).sum() for seed, of in zip(seeds, doubt, strict=True))
    return total


def _signs(seed: int, like: Tensor) -> Tensor:
    digest = blake2b(f"signs {seed}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


def _each(gradient: Tensor) -> Tensor:
    """Squares, as shares of each sample's mean: a sample that is in no doubt counts as much as others."""
    squares = gradient.float().square()
    mean = squares.mean((1, 2, 3, 4), keepdim=True)
    return squares / torch.where(mean > 0, mean, 1.0)


def _weight(squares: Tensor, power: float) -> Tensor:
    """squares^power, of a mean square of one."""
    weight = (squares / squares.mean()).clamp_min(LEAST) ** power
    return weight / weight.square().mean().sqrt()
