"""The chart of a report: which bars there are, what is refused, and that a file is written whole."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import lrw
from lrw.chart import MOST_BARS, Bar, draw, shortened

X = torch.randn(1, 3, 8, 6, 10, generator=torch.Generator().manual_seed(0))


class Sorted(nn.Module):
    """A convolution, and an operator there is no kernel for."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv3d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x).cumsum(2)


def bars(count: int) -> list[Bar]:
    return [Bar(f"part {i}", 1.0 + i, "Direct", "programs") for i in range(count)]


@pytest.mark.parametrize("count", [1, MOST_BARS, MOST_BARS + 1, 200])
def test_the_longest_come_first_and_the_rest_is_summed(count: int) -> None:
    shown = shortened(bars(count))
    assert len(shown) == min(count, MOST_BARS)
    assert shown[0].ms == count
    assert sum(bar.ms for bar in shown) == pytest.approx(sum(bar.ms for bar in bars(count)))
    if count > MOST_BARS:
        assert shown[-1].name == f"{count - MOST_BARS + 1} others"
        assert shown[-1].kind == ""


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_a_report_is_drawn(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no figure without matplotlib")
    report = lrw.accelerate(Sorted().eval(), X, measure=False).report
    path = report.figure(tmp_path / f"parts{suffix}")
    assert path.stat().st_size > 5_000
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    if suffix == ".svg":
        said = path.read_text()
        assert all(text in said for text in ("times as fast", "cumsum", "torch's own", "inner"))


def test_many_bars_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no figure without matplotlib")
    assert draw(tmp_path / "many.png", "$ a title", bars(200)).stat().st_size > 5_000


def test_what_cannot_be_drawn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"path: '.*parts\.jpeg'; accepted are files of \.png, \.pdf, \.svg"):
        draw(tmp_path / "parts.jpeg", "", bars(1))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"the figure needs matplotlib, .*: pip install 'lrw\[plot\]'"):
        draw(tmp_path / "parts.png", "", bars(1))
    assert not [*tmp_path.iterdir()]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="no figure without matplotlib")
    with pytest.raises(OSError, match=r"nowhere/parts\.png"):
        draw(tmp_path / "nowhere" / "parts.png", "", bars(1))
