"""A small network with every kind of layer conversion meets, its input, and the network trained and pruned."""

import torch
from torch import nn

import lrw

X = torch.randn(2, 1, 8, 9, 10, generator=torch.Generator().manual_seed(1))


class SubclassedConv3d(nn.Conv3d):
    """As torchvision's Conv3DSimple: a subclass must be found too."""


def small_net(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        SubclassedConv3d(1, 4, 3, padding=1), nn.ReLU(),
        nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1), bias=False), nn.BatchNorm3d(6), nn.ReLU(),
        nn.Conv3d(6, 8, 3, stride=2), nn.Conv3d(8, 8, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 3),
    ).eval()  # fmt: skip


def trained(net: nn.Module, pruner: lrw.ColumnPruner | None = None, steps: int = 3) -> nn.Module:
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    for step in range(steps):
        loss = (net(X) - step).square().mean()
        optimizer.zero_grad()
        loss.backward()
        if pruner is not None:
            pruner.observe()
        optimizer.step()
    return net


def pruned_net(sparsity: float = 0.75, **options: object) -> tuple[nn.Module, lrw.ColumnPruner]:
    net = lrw.add_low_rank(lrw.to_winograd(small_net(), 2), rank=4)
    pruner = lrw.ColumnPruner(net, sparsity, **options)  # type: ignore[arg-type]
    trained(net, pruner)
    pruner.prune()
    return trained(net), pruner
