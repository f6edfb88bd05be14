"""Layers whose weights the network around them reads stay what they are: U is no filter."""

import pytest
import torch
from torch import Tensor, fx, nn

import lrw
from verify.unit.lrw.prunable import quietly


class Plain(nn.Module):
    """Weights are read while it is made, which is over."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(4, 4, 3, padding=1)
        self.block = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
        self.norm = nn.BatchNorm3d(4)
        nn.init.normal_(self.conv.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.block(self.conv(x))) + self.extra()

    def extra(self) -> Tensor:
        return self.norm.weight.mean()


class Read(Plain):
    """In a method that `forward` calls, which another class has."""

    def extra(self) -> Tensor:
        return self.conv.weight.square().mean()


class Asked(Plain):
    """Of what kind they are: U is of the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.conv.weight.dtype).to(device=self.block[0].weight.device))


class Inherited(Read):
    """What its base reads it reads."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Penalty:
    """No module by itself."""

    def extra(self) -> Tensor:
        return self.block[0].weight.abs().mean()  # type: ignore[attr-defined, no-any-return]


class Mixed(Penalty, Plain):
    pass


class Named(Plain):
    """By another name."""

    def __init__(self) -> None:
        super().__init__()
        self.same = self.conv

    def extra(self) -> Tensor:
        return self.same.weight.mean()


class Deeper(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.part = Plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) + self.part.conv.weight.sum()


X = torch.randn(1, 4, 6, 6, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("net", "read"),
    [
        (Plain, set()),
        (Asked, set()),
        (Read, {"conv"}),
        (Inherited, {"conv"}),
        (Mixed, {"block.0"}),
        (Named, {"conv"}),
        (Deeper, {"part.conv"}),
        (lambda: fx.symbolic_trace(Read()), {"conv"}),
        (lambda: nn.Sequential(Read(), Plain()), {"0.conv"}),
    ],
)
def test_layers_whose_weights_are_read_are_left(net: type[nn.Module], read: set[str]) -> None:
    torch.manual_seed(0)
    given = net().eval()
    converted = lrw.to_winograd(given, 2)
    assert {name for name, why in converted.report.skipped.items() if "read by" in why} == read
    torch.testing.assert_close(converted(X), given(X), rtol=1e-4, atol=1e-4)


def test_what_reads_them_is_named() -> None:
    report = lrw.to_winograd(Read(), 2).report
    assert report.skipped["conv"] == "its weight is read by Read.forward as well"
    assert "conv: left as it is, its weight is read by Read.forward" in str(report)
    pruned = quietly(Read().eval(), [X], sparsity=0.5)
    assert [layer.size.name for layer in pruned.report.layers] == ["block.0"]
    assert "read by" in pruned.report.skipped["conv"]


def test_classes_without_sources_are_taken_as_they_are() -> None:
    namespace: dict[str, type[nn.Module]] = {"Plain": Plain}  # type: ignore[dict-item]
    exec("class Made(Plain):\n    def extra(self):\n        return self.conv.weight.mean()", namespace)
    assert "conv" in lrw.to_winograd(namespace["Made"](), 2).report.converted
