"""Networks and samples for the tests of lrw.prune, and how far a pruned network is from its original."""

from typing import Any

import torch
from torch import Tensor, nn

import lrw


class Branches(nn.Module):
    """A residual block, a layer that is used twice, one that no sample reaches, and a head of two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv3d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm3d(8)
        self.twice = nn.Conv3d(8, 8, 3, padding=1, bias=False)
        self.unused = nn.Conv3d(8, 8, 3)
        self.strided = nn.Conv3d(8, 6, 3, stride=2)
        self.flat = nn.Conv3d(6, 6, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        y = self.norm(self.stem(x)).relu()
        y = y + self.twice(y).relu()
        y = y + self.twice(y).relu()
        y = self.flat(self.strided(y))
        return y.mean((2, 3, 4)), {"map": y, "where": y.argmax(1)}


def branches() -> Branches:
    torch.manual_seed(2)
    net = Branches().eval()
    with torch.no_grad():
        net.norm.running_mean.normal_(0, 0.1)  # type: ignore[union-attr]
    return net


def samples(batches: int = 3, size: int = 2, seed: int = 0, shape: tuple[int, ...] = (4, 7, 9, 8)) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, *shape, generator=generator) for _ in range(batches)]


def quietly(net: nn.Module, batches: Any, **options: Any) -> nn.Module:
    return lrw.prune(net, batches, progress=False, **{"sparsity": 0.5, **options})


def far(net: nn.Module, original: nn.Module, batches: list[Tensor]) -> float:
    """Distance of the first output, root mean square over that of the original's."""
    with torch.no_grad():
        ours, theirs = (torch.cat([n(x)[0] for x in batches]) for n in (net, original))
    return float((ours - theirs).norm() / theirs.norm())


def wide() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv3d(16, 16, 3, padding=1), nn.ReLU(), nn.Conv3d(16, 16, 3, padding=1), nn.ReLU()]
    return nn.Sequential(nn.Conv3d(2, 16, 1), *layers, nn.AdaptiveAvgPool3d(1)).eval()
