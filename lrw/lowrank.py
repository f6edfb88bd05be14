"""Low-rank Winograd layers throughout a network: freeze the base, train Gr and Gc."""

from collections import defaultdict
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lrw import checks
from lrw.layers import check_replaceable, named_layers, replace_layers
from lrw.nn import LowRankWinogradConv3d, WinogradConv3d
from lrw.typed import typed

PROBE = 16  # numbers of a stand-in


@dataclass(frozen=True)
class LowRankReport:
    """The rank of each layer's update; capped: those that have fewer positions than the rank that was asked for."""

    ranks: dict[str, int]
    capped: tuple[str, ...]

    def __str__(self) -> str:
        why = ", which are all its positions: its update is no smaller than its weights"
        return "\n".join(f"{name}: rank {rank}{why * (name in self.capped)}" for name, rank in self.ranks.items())


@typed
def add_low_rank(
    net: nn.Module, rank: int | Mapping[str, int] = 8, *, init: str = "principal", units: str = "importance"
) -> nn.Module:
    """Give every WinogradConv3d of `net`, in place, a low-rank update of `rank` (or rank by layer name); returns `net`.

    A layer with fewer positions than an int `rank` that suits others, such as one of 3x1x1 taps at tile 2, gets as many
    as it has; `.report` lists ranks.

    Transformed weights are frozen; everything else (biases, norms, linear layers) stays trainable. `units` says what
    rows of Gc are counted in: with "importance" and "gram" one learning rate suits all positions, with "none", as in
    the paper, the factors are multiplied as they are (`LowRankWinogradConv3d`). At step 0 the network is the given one:
    up to rounding with init "principal" (the factors take over the base's largest directions, which retrains better
    than a start at zero: docs/evidence.md), bit for bit with "gc_zero" and "gr_zero", see `LowRankWinogradConv3d.of`.
    Raises ValueError, with nothing changed, for ranks outside 1..T, unknown layer names, non-finite weights, layers
    whose weights are computed from others (torch.nn.utils.prune, weight_norm) or on whose instance hooks or methods
    were set, or a network without WinogradConv3d layers. The defaults are ours, the paper's are not known.
    """
    checks.check_unwrapped(net)
    layers = {n: m for n, m in named_layers(net, WinogradConv3d).items() if not isinstance(m, LowRankWinogradConv3d)}
    if not layers:
        raise ValueError(
            "net: holds no WinogradConv3d without a low-rank update; convert it with lrw.to_winograd first"
        )
    checks.check_finite(net)
    check_replaceable(net, layers)
    positions = {name: layer.geometry.tile.positions for name, layer in layers.items()}
    if isinstance(rank, Mapping):
        ranks, capped = dict(rank), tuple[str, ...]()
    else:
        fits = isinstance(rank, int) and rank <= max(positions.values())  # some layer has so many
        ranks = {name: min(rank, most) if fits else rank for name, most in positions.items()}
        capped = tuple(name for name, own in ranks.items() if own != rank)
    unknown = sorted(set(ranks) - set(layers))
    if unknown:
        raise ValueError(f"rank: names {unknown[0]!r}, which is no WinogradConv3d; accepted are {', '.join(layers)}")
    for name, value in ranks.items():
        checks.check_count(value, f"rank of {name!r}" if name else "rank", positions[name])
    new: dict[str, nn.Module] = {
        name: LowRankWinogradConv3d.of(layers[name], r, init, units) for name, r in ranks.items()
    }
    result = replace_layers(net, new)
    result.report = LowRankReport(ranks, capped)  # type: ignore[assignment]
    return result


@typed
def merge_low_rank(net: nn.Module) -> nn.Module:
    """Turn every low-rank layer of `net`, in place, into a WinogradConv3d with the update added; returns `net`.

    The function stays, the masks too; all weights are trainable from then on. Raises ValueError, with nothing changed,
    where there is none, or where one's weights or instance are not its own as in `add_low_rank`.
    """
    checks.check_unwrapped(net)
    layers = named_layers(net, LowRankWinogradConv3d)
    if not layers:
        raise ValueError("net: holds no low-rank layer; give it some with lrw.add_low_rank first")
    check_replaceable(net, layers)
    return replace_layers(net, {name: layer.merged() for name, layer in layers.items()})


def count_parameters(net: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters of `net`."""
    sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


@dataclass(frozen=True)
class TrainingSize:
    """What training holds in memory beside activations: numbers of parameters, and bytes of what goes with them."""

    trainable: int
    total: int
    gradient_bytes: int
    optimizer_bytes: int

    def __str__(self) -> str:
        share = 100 * self.trainable / max(self.total, 1)
        return (f"trainable parameters: {self.trainable:,} of {self.total:,} ({share:.2f} %), gradients "
                f"{self.gradient_bytes:,} bytes, optimizer {self.optimizer_bytes:,} bytes")  # fmt: skip


@typed
def training_size(net: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingSize:
    """Count `net`'s parameters, their gradients and what `optimizer` keeps for them, before or after its first step.

    What an optimizer keeps is found by letting a copy of it take a step on small stand-ins. Raises ValueError for
    LBFGS, which keeps a history of steps, and for a network without all of its parameters.
    """
    checks.check_network(net)
    if isinstance(optimizer, torch.optim.LBFGS):
        raise ValueError("optimizer: LBFGS keeps a history of steps; accepted are those whose state has one size")
    trained = [p for p in net.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    trainable, total = count_parameters(net)
    return TrainingSize(trainable, total, gradients, sum(_state_bytes(optimizer, g) for g in optimizer.param_groups))


def _state_bytes(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> int:
    probe, size = copy(optimizer), 0
    probe.state = defaultdict(dict)
    for p in group["params"]:
        stand_in = torch.zeros(PROBE, dtype=p.dtype, device=p.device, requires_grad=True)
        stand_in.grad = torch.zeros_like(stand_in)
        probe.param_groups = [{**group, "params": [stand_in]}]
        probe.step()
        held = [t for t in probe.state[stand_in].values() if isinstance(t, torch.Tensor) and t.numel() >= PROBE]
        size += sum(t.element_size() for t in held) * p.numel()
    return size


@typed
def print_trainable_parameters(net: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Print trainable against all parameters, and with an `optimizer` the bytes training them takes, in one line.

    Raises ValueError as `training_size` does.
    """
    checks.check_network(net)
    if optimizer is not None:
        print(training_size(net, optimizer))
        return
    trainable, total = count_parameters(net)
    print(f"trainable parameters: {trainable:,} of {total:,} ({100 * trainable / max(total, 1):.2f} %)")
