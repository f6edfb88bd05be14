"""How much each place and each output channel of a layer counts: by what an error there does to the network's answer.

A network of class scores answers with the likeliest class, of a sample or of each voxel. Errors count where that is in
question: a layer's outputs weigh by the gradient of the answer's logarithm, as in a diagonal of Fisher's information,
which needs no labels. At a tile a squared error weighs by the root of the squared gradient, between all alike and the
whole of it, in a channel by the whole (tried: bench/notes/pruning.md). The use for columns is ours.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lrw.layers import copied, evaluating
from lrw.pruning.calibration import Calibration, Draw
from lrw.pruning.tiles import Tiles, inside, outputs_at

AT_ONCE = 2  # samples of a pass with its gradient
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

    One pass and its gradient for each batch, AT_ONCE samples at a time where the network takes a tensor. Layers that no
    gradient reaches are left out. Raises ValueError where there have to be scores and no gradient comes from any.
    """
    if not (gives_scores(net, calibration) if scores is None else scores):
        return {}
    found = _weights(net, calibration, draws)
    if scores and not found:
        raise ValueError("scores: no gradient comes from class scores [N, classes, ...]; accepted is None")
    return found


@dataclass
class _Seen:
    """What a batch says of a layer: squares of gradients at its tiles, by call and part, and in its channels; whether
    each part had whole samples only."""

    tiles: list[list[Tensor]] = field(default_factory=list)
    channels: Any = 0.0
    apart: bool = True


def _weights(net: nn.Module, calibration: Calibration, draws: Sequence[Draw]) -> dict[str, Weight]:
    net = copied(net) if _inferred(net) else net
    tiles: dict[str, list[Tensor]] = {own.name: [] for own in draws}
    channels: dict[str, Any] = {own.name: 0.0 for own in draws}
    for batch, marks in zip(calibration.batches, calibration.marks, strict=True):
        seen = _look(net, calibration, _slices(batch, marks), draws)
        if not all(own.apart for own in seen.values()):
            seen = _look(net, calibration, [(batch, marks)], draws)
        for name, own in seen.items():
            tiles[name] += [part for call in own.tiles for part in call]  # in the order in which tiles are taken
            channels[name] = channels[name] + own.channels
    joined = {name: torch.cat(parts) for name, parts in tiles.items() if parts}
    return {
        name: Weight(_weight(squares, 0.25), _weight(channels[name], 0.5))
        for name, squares in joined.items()
        if float(squares.sum()) > 0
    }


def _look(
    net: nn.Module, calibration: Calibration, parts: Sequence[tuple[Any, Sequence[int]]], draws: Sequence[Draw]
) -> dict[str, _Seen]:
    """What parts of a batch, with their marks, say of each layer that gradients reach."""
    by_name, seen = {own.name: own for own in draws}, {own.name: _Seen() for own in draws}
    outputs: list[tuple[str, Tensor]] = []

    def hook(name: str) -> Any:
        def note(module: nn.Module, args: Any, y: Tensor) -> Tensor:
            y = y if y.requires_grad else y.detach().requires_grad_()
            outputs.append((name, y))
            return y.clone()  # later operations may write to it

        return note

    with ExitStack() as stack:
        stack.enter_context(evaluating(net))
        stack.enter_context(torch.enable_grad())
        for name in by_name:
            stack.callback(net.get_submodule(name).register_forward_hook(hook(name)).remove)
        for part, marks in parts:
            outputs.clear()
            doubt = _doubt(calibration.forward(net, pytree.tree_map_only(Tensor, _recorded, part)), marks)
            if not isinstance(doubt, Tensor) or not doubt.requires_grad:
                continue
            found = torch.autograd.grad(doubt, [y for _, y in outputs], allow_unused=True)
            calls = dict.fromkeys(by_name, 0)
            for (name, y), gradient in zip(outputs, found, strict=True):
                _note(
                    seen[name], by_name[name], calls[name], marks, torch.zeros_like(y) if gradient is None else gradient
                )
                calls[name] += 1
    return seen


def _note(seen: _Seen, draw: Draw, call: int, marks: Sequence[int], gradient: Tensor) -> None:
    """Add what the gradient [N, Cout, D, H, W] of a call says."""
    g, tile, size = _each(gradient), draw.geometry.tile, gradient.shape[2:]
    chosen = draw.chosen(marks, call, len(g), size)
    at = outputs_at(g.sum(1, keepdim=True), None, tile, chosen).sum((0, 2))
    there = inside(tile, size, chosen).sum(1).clamp_min(1)
    if call == len(seen.tiles):
        seen.tiles.append([])
    seen.tiles[call].append(at / there.to(at))  # a voxel's: ragged edges count as they are
    seen.channels = seen.channels + g.sum((0, 2, 3, 4))
    seen.apart &= len(g) % len(marks) == 0


def _slices(batch: Any, marks: Sequence[int]) -> list[tuple[Any, Sequence[int]]]:
    """The samples of a batch, so many at a time as the graph of a pass may hold, where they can be told apart."""
    if not isinstance(batch, Tensor) or len(batch) != len(marks):
        return [(batch, marks)]
    return [(batch[i : i + AT_ONCE], marks[i : i + AT_ONCE]) for i in range(0, len(marks), AT_ONCE)]


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
    for output, scores in enumerate(_scores(given)):
        doubt = -scores.float().log_softmax(1).amax(1)  # [N, ...]
        seeds = marks if len(doubt) == len(marks) else [sum(marks)] * len(doubt)
        total = total + sum((_signs(f"{output} {seed}", of) * of).sum() for seed, of in zip(seeds, doubt, strict=True))
    return total


def _signs(seed: str, like: Tensor) -> Tensor:
    digest = blake2b(f"signs {seed}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return (torch.randint(0, 2, like.shape, generator=generator) * 2 - 1).to(like)


def _each(gradient: Tensor) -> Tensor:
    """Squares, as shares of each sample's mean: a sample that is in no doubt counts as much as others."""
    squares = gradient.double().square()  # of sure samples single precision has none
    mean = squares.mean((1, 2, 3, 4), keepdim=True)
    return squares / torch.where(mean > 0, mean, 1.0)


def _weight(squares: Tensor, power: float) -> Tensor:
    """squares^power, of a mean square of one."""
    weight = (squares / squares.mean()).clamp_min(LEAST) ** power
    return weight / weight.square().mean().sqrt()
