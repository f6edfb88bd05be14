"""Low-rank Winograd layers throughout a network: freeze the base, train Gr and Gc."""

from collections.abc import Mapping

from torch import nn

from lrw import checks
from lrw.layers import named_layers, replace_layers
from lrw.nn import LowRankWinogradConv3d, WinogradConv3d


def add_low_rank(net: nn.Module, rank: int | Mapping[str, int] = 8, *, init: str = "gc_zero") -> nn.Module:
    """Give every WinogradConv3d of `net`, in place, a low-rank update of `rank` (or rank by layer name); returns `net`.

    Transformed weights are frozen; everything else stays trainable. At step 0 the network is the given one bit for bit.
    Raises ValueError, with nothing changed, for ranks outside 1..T, unknown layer names, non-finite weights, or a
    network without WinogradConv3d layers. Rank 8 as the default is ours, the paper's is not known.
    """
    layers = {n: m for n, m in named_layers(net, WinogradConv3d).items() if not isinstance(m, LowRankWinogradConv3d)}
    if not layers:
        raise ValueError(
            "net: holds no WinogradConv3d without a low-rank update; convert it with lrw.to_winograd first"
        )
    checks.check_finite(net)
    ranks = dict(rank) if isinstance(rank, Mapping) else dict.fromkeys(layers, rank)
    unknown = sorted(set(ranks) - set(layers))
    if unknown:
        raise ValueError(f"rank: names {unknown[0]!r}, which is no WinogradConv3d; accepted are {', '.join(layers)}")
    for name, value in ranks.items():
        checks.check_count(value, f"rank of {name!r}" if name else "rank", layers[name].geometry.tile.positions)
    return replace_layers(net, {name: LowRankWinogradConv3d.of(layers[name], r, init) for name, r in ranks.items()})


def count_parameters(net: nn.Module) -> tuple[int, int]:
    """(trainable, all) parameters of `net`."""
    sizes = [(p.numel(), p.requires_grad) for p in net.parameters()]
    return sum(n for n, trained in sizes if trained), sum(n for n, _ in sizes)


def print_trainable_parameters(net: nn.Module) -> None:
    """Print trainable against all parameters, in one line."""
    trainable, total = count_parameters(net)
    print(f"trainable parameters: {trainable:,} of {total:,} ({100 * trainable / max(total, 1):.2f} %)")
