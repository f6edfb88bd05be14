"""Networks of one's own by name, and layers in the graphs of torch.export."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lrw
from lrw.layers import named_layers
from lrw.nets import own
from lrw.nets.exported import with_layers


class Several(nn.Module):
    """Convolutions that can be layers, and some that cannot: shared by two settings, computed weights, transposed."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(2, 4, 3, padding=1)
        self.again = nn.Conv3d(4, 4, 3, padding="same", bias=False)
        self.grouped = nn.Conv3d(4, 8, (1, 3, 3), stride=(1, 2, 2), groups=2)
        self.shared = nn.Conv3d(8, 8, 1)
        self.up = nn.ConvTranspose3d(8, 2, 2, stride=2)
        self.scale = nn.Parameter(torch.rand(2, 2, 1, 1, 1))
        self.norm = nn.BatchNorm3d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.again(self.again(self.norm(self.first(x))).relu())
        x = self.shared(self.shared(self.grouped(x)))
        x = x + nn.functional.conv3d(x, self.shared.weight, self.shared.bias, stride=1, padding=0)
        x = nn.functional.conv3d(x, self.shared.weight, self.shared.bias, stride=2)
        return nn.functional.conv3d(self.up(x), 2 * self.scale)


@pytest.mark.filterwarnings("ignore:`isinstance")  # torch's own, of what it copies
@pytest.mark.parametrize("decomposed", [False, True])
def test_graphs_get_layers_and_compute_the_same(decomposed: bool) -> None:
    net, x = Several(), torch.randn(2, 2, 4, 7, 7)
    expected = net.eval()(x)
    exported = torch.export.export(net, (x,))
    if decomposed:
        exported = exported.run_decompositions()
    found = with_layers(exported.module())  # type: ignore[arg-type]
    layers = named_layers(found, nn.Conv3d)
    assert sorted(layers) == ["again", "first", "grouped", "shared"]
    for name, layer in layers.items():
        conv = net.get_submodule(name)
        assert (layer.kernel_size, layer.stride, layer.groups) == (conv.kernel_size, conv.stride, conv.groups)
    assert found.state_dict().keys() == net.state_dict().keys()
    torch.testing.assert_close(found.train()(x), expected, rtol=0, atol=0 if not decomposed else 1e-6)
    torch.testing.assert_close(found.eval()(x), expected, rtol=0, atol=0 if not decomposed else 1e-6)
    converted = lrw.to_winograd(found, tile=2)
    assert sorted(named_layers(converted, lrw.WinogradConv3d)) == ["again", "first"]
    torch.testing.assert_close(converted(x), expected, rtol=1e-4, atol=1e-5)


def test_parameters_of_the_network_itself_stay(tmp_path: Path) -> None:
    """No layer has a place there."""

    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(3, 2, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.conv3d(x, self.kernel)

    x = torch.randn(1, 2, 4, 5, 6)
    for net in (Bare().eval(), nn.Conv3d(2, 3, 3, bias=False).eval()):
        found = with_layers(torch.export.export(net, (x,)).module())  # type: ignore[arg-type]
        assert not named_layers(found, nn.Conv3d)
        torch.testing.assert_close(found(x), net(x), rtol=0, atol=0)


def test_files_of_networks_in_training_are_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv3d(2, 3, 3), nn.BatchNorm3d(3)).train()
    torch.export.save(torch.export.export(net, (torch.randn(2, 2, 4, 5, 6),)), tmp_path / "net.pt2")
    with pytest.raises(ValueError, match=r"net: .*net.pt2 was exported in training mode"):
        own(str(tmp_path / "net.pt2"))


def test_files_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net, x = Several(), torch.randn(1, 2, 4, 7, 7)
    torch.export.save(torch.export.export(net.eval(), (x,)), "net.pt2")
    torch.testing.assert_close(own("net.pt2")(x), net(x), rtol=0, atol=0)
    (tmp_path / "mine_of_tests.py").write_text(
        "from torch import nn\ndef net(): return nn.Conv3d(1, 2, 3)\nnumber = 3\ndef none(): return number\n"
        "def bad(): raise OSError('no disk')\n"
    )
    assert isinstance(own("mine_of_tests:net"), nn.Conv3d)
    for name, message in {
        "mine_of_tests:number": "is of type int; accepted is a function",
        "mine_of_tests:none": "gives something of type int",
        "mine_of_tests:bad": "raised OSError: no disk",
        "mine_of_tests:absent": "AttributeError",
        "nowhere_of_tests:net": "ModuleNotFoundError",
        "net": r"accepted are PACKAGE.MODULE:FUNCTION and FILE.pt2",
    }.items():
        with pytest.raises(ValueError, match=f"^net: .*{message}"):
            own(name)
    (tmp_path / "odd.pt2").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"^net: odd.pt2 is no file of torch.export.save"):
        own("odd.pt2")
    with pytest.raises(FileNotFoundError):
        own("absent.pt2")
