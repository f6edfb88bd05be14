"""What a job's report says: why a network gained nothing, its multiplies, its losses and scores."""

from math import log
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lrw
from lrw.job.losses import class_loss, label_loss, voxel_loss
from lrw.job.metrics import sample_dice
from lrw.job.report import LayerRow, NetworkRow, Report
from lrw.job.sizes import multiplies


def report(ms: tuple[float, float, float], share: float = 0.8, channels: int = 64, spread: float = 0.01) -> Report:
    """Of a dense network in torch, accelerated and compressed, and one layer with that share of the first's time."""
    names = ("dense", "dense, accelerated", "compressed, accelerated")
    rows = [
        NetworkRow(name, name.split(",")[0], 1, 1, t, [t * (1 - spread), t * (1 + spread)], ms[0] / t, [1.0, 1.0])
        for name, t in zip(names, ms, strict=True)
    ]
    layer = LayerRow("conv", "F", 64, 16, 1, 16 * channels**2, 27 * channels**2, 1, 1, share * ms[0], 0.1)
    scores = {"accuracy": 0.9, "loss": 0.1, "auc": None, "dice": None}
    accuracy = {"dense": scores, "compressed": {**scores, "accuracy": 0.8}}
    return Report({}, {"segmented": False}, accuracy, {}, {}, [layer], rows, None, [], {}, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (report((4.0, 2.0, 1.0)), ""),
        (report((4.0, 2.0, 1.99)), "no faster than accelerated alone: what is left of a pass"),
        (report((4.0, 2.0, 2.5)), "no faster than accelerated alone: what is left of a pass"),
        (report((4.0, 4.2, 4.1)), "no faster than in torch"),
        (report((4.0, 2.0, 2.0), share=0.3), "the pruned layers take 30% of its time in torch"),
        (report((4.0, 2.0, 2.0), channels=8), "with so few channels (8 or so a layer)"),
        (report((4.0, 2.0, 1.8), spread=0.2), "no faster than accelerated alone"),
    ],
)
def test_why_nothing_was_gained(made: Report, words: str) -> None:
    assert words in made.verdict
    assert bool(words) == bool(made.verdict)


def test_networks_have_the_scores_of_their_milestones() -> None:
    assert [report((1, 1, 1)).score_of(row) for row in report((1, 1, 1)).networks] == [0.9, 0.9, 0.8]


def test_rows_are_medians_and_quartiles_of_turns(tmp_path: Path) -> None:
    (tmp_path / "net").write_bytes(b"12345")
    row = NetworkRow.of(
        "dense", ", fast", tmp_path / "net", 7, np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 4, 6, 8, 20])
    )
    assert row == NetworkRow("dense, fast", "dense", 5, 7, 3.0, [2.0, 4.0], 2.0, [2.0, 2.0])


def test_multiplies_are_those_of_each_layer() -> None:
    """By keyword too; a convolution, a strided one, one in groups, a transposed one, a linear layer."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv3d(2, 4, 3, padding=1)
            self.second = nn.Conv3d(4, 6, 2, stride=2, groups=2)
            self.up = nn.ConvTranspose3d(6, 3, 2, stride=2)
            self.last = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(input=self.up(self.second(input=self.first(x)), output_size=(4, 6, 8)))  # type: ignore[no-any-return]

    net, x = Net(), torch.zeros(1, 2, 4, 6, 8)
    first, second, up, last = 192 * 27 * 8, 24 * 8 * 2 * 6, 24 * 8 * 18, 3 * 24 * 8 * 5
    assert multiplies(net, x) == first + second + up + last
    fewer = lrw.to_winograd(net, {"first": 2})
    assert multiplies(fewer, x) < multiplies(net, x) - first // 2


def test_losses_are_what_they_are_called() -> None:
    logits, labels = torch.zeros(2, 4), torch.tensor([0, 3])
    assert float(class_loss(logits, labels)) == pytest.approx(log(4))
    voxels, truth = torch.zeros(1, 2, 2, 2, 2), torch.zeros(1, 2, 2, 2, dtype=torch.int64)
    truth[0, 0] = 1  # four of eight: of shares one half, 2 * 2 + 1 of 4 + 4 + 1 are in both
    assert float(voxel_loss(voxels, truth)) == pytest.approx(log(2) + 1 - 5 / 9)
    assert label_loss(logits, labels) == class_loss(logits, labels)
    assert label_loss(voxels, truth) == voxel_loss(voxels, truth)


def test_dice_is_of_the_classes_that_occur() -> None:
    labels = torch.tensor([[[[0, 1, 1, 0]]], [[[0, 0, 0, 0]]]])
    found = torch.tensor([[[[0, 1, 2, 0]]], [[[0, 0, 0, 0]]]])
    logits = nn.functional.one_hot(found, 9).movedim(-1, 1).float()
    assert sample_dice(logits, labels).tolist() == pytest.approx([(2 / 3 + 0) / 2, 1.0])
    assert sample_dice(nn.functional.one_hot(labels, 9).movedim(-1, 1).float(), labels).tolist() == [1.0, 1.0]
