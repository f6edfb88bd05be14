"""The bench of pruning: scores, intervals and counts are what their words say, and the committed rows hold the bars."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bench import pruning, report
from bench.evidence.tasks import _dice, sample_dice
from bench.gate import Red
from bench.pruning import Row
from bench.rows import read
from lrw.data import Split, Volumes

ROWS = read(Row, report.RESULTS / "pruning.csv")


def row(task: str, method: str, tile: str, dropped: float) -> Row:
    return next(r for r in ROWS if (r.task, r.method, r.tile, r.dropped) == (task, method, tile, dropped))


class Logits(nn.Module):
    """What it is fed, as scores of three classes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x, 0.3 - x.abs()], dim=1)


def test_dice_of_each_sample_is_that_of_the_evidence() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 1, 4, 5, 6), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 3, (5, 4, 5, 6), generator=generator)
    labels[0] = 0
    split = Split(images, labels)
    volumes = Volumes("parts", ("none", "one", "two"), split, split, split)
    each = [sample_dice(Logits()(x), y) for x, y in volumes.batches("test", 2)]
    assert torch.cat(each).shape == (5,)
    assert float(torch.cat(each).mean()) == pytest.approx(_dice(Logits(), volumes), abs=1e-6)


def test_intervals_hold_the_mean_and_shrink_with_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    lost = 0.1 + torch.randn(4000, generator=generator, dtype=torch.float64)
    few, many = pruning._interval(lost[:100]), pruning._interval(lost)
    assert few[0] < float(lost[:100].mean()) < few[1]
    assert many[0] < float(lost.mean()) < many[1]
    assert many[1] - many[0] == pytest.approx(2 * 1.96 / 4000**0.5, rel=0.1)
    assert many[1] - many[0] < 0.3 * (few[1] - few[0])


def test_cuts_drop_what_weighs_least_and_change_nothing_else() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), nn.ReLU())
    whole = pruning._spared(net, 2)
    cut = pruning._cut(whole, 0.75)
    kept = cut[0].geometry.positions
    assert len(kept) == 16
    assert torch.equal(cut[0].weights(), whole[0].weights()[list(kept)])
    assert whole[0].geometry.columns == 64
    x = torch.randn(1, 4, 4, 4, 4)
    assert pruning._fewer(cut, x) == pytest.approx(27 * 64 / (16 * 8))
    assert pruning._fewer(net, x) == 1


def test_the_gate_is_red_for_a_network_that_is_another() -> None:
    torch.manual_seed(0)

    class Held:
        net = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1))
        samples = (torch.randn(1, 4, 5, 5, 5),)

        class task:
            name = "none"

    whole = pruning._spared(Held.net, 4)
    pruning._gate(Held, whole, 4)  # type: ignore[arg-type]
    whole[0].keep(range(100))
    with pytest.raises(Red, match=r"gate: none converted to F\(4,3\) is .* off; accepted is 0.001"):
        pruning._gate(Held, whole, 4)  # type: ignore[arg-type]


def test_without_volumes_a_task_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pruning.main(["--tasks", "hippocampus", "--data", str(tmp_path)]) == 0
    assert "hippocampus: left out, no " in capsys.readouterr().err


def test_tables_have_every_committed_row() -> None:
    assert len(pruning.table(ROWS)) == 2 + len({(r.method, r.tile, r.dropped) for r in ROWS})
    assert pruning.table([]) == pruning.short([]) == [pruning.NOTHING]
    widths = {line.count("|") for line in (*pruning.short(ROWS),)}
    assert len(widths) == 1
    assert f"{row('digits', 'fitted', 'F(4,3)', 0.5).score:.3f}" in "\n".join(pruning.short(ROWS))


@pytest.mark.parametrize(
    ("task", "tile", "dropped", "most"),
    [
        ("digits", "F(2,3)", 0.5, 0.015),
        ("digits", "F(2,3)", 0.75, 0.05),
        ("digits", "F(4,3)", 0.5, 0.04),
    ],
)
def test_without_training_no_more_is_lost_than_was_promised(task: str, tile: str, dropped: float, most: float) -> None:
    assert row(task, "fitted", tile, dropped).lost <= most


def test_what_is_fitted_loses_less_than_the_cut_and_what_is_trained_less_than_that() -> None:
    for fitted in (r for r in ROWS if r.method == "fitted"):
        cut = row(fitted.task, "cut by importance", fitted.tile, fitted.dropped or 0)
        assert fitted.high < cut.low
        trained = [r for r in ROWS if (r.task, r.method, r.tile, r.dropped) ==
                   (fitted.task, "fitted, then trained", fitted.tile, fitted.dropped)]  # fmt: skip
        assert all(r.lost < fitted.lost for r in trained)
