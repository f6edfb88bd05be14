"""The evidence: chains of training on a tiny setting, their rows, times, claims, and the committed page."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import lrw
from bench import report
from bench.evidence import chain, claims, figures, latency, methods, page
from bench.evidence.claims import Claim
from bench.evidence.command import main
from bench.evidence.latency import Timing
from bench.evidence.rows import Row
from bench.evidence.settings import REMOVED, SETTINGS, SMALL, Stretch
from bench.rows import Writer, read
from lrw.layers import named_layers
from lrw.nets import C3D
from lrw.nn import WinogradConv3d
from lrw.pruning import Granularity
from lrw.pruning.weights import whole_mask
from verify.unit.data.small import DATA, needs_data

TINY = replace(SMALL, name="tiny", width=4, clips=40, stretches=dict.fromkeys(SMALL.stretches, Stretch(1, 1, 1, 20)))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> chain.Job:
    monkeypatch.setitem(SETTINGS, "tiny", TINY)
    return chain.Job("tiny", "digits", chain.DENSE, 0, DATA, tmp_path)


@pytest.mark.parametrize("method", ["vanilla", "grouped", "distilled", "sparse_winograd", "native", "spatial_winograd"])
def test_a_chain_gives_a_row_for_each_rate_with_what_is_kept(tiny: chain.Job, method: str) -> None:
    (dense,) = chain.run(tiny)
    found = chain.run(replace(tiny, method=method))
    assert (dense.method, dense.kept) == ("dense", 1.0)
    assert [row.removed for row in found] == [0.0, *REMOVED]
    for row in found[1:]:
        # native pruning lets weights come back; the others drop what was asked for
        assert row.kept == pytest.approx(1 - row.removed, abs=0.35 if method == "native" else 0.02)
        assert 0 < row.domain < row.trainable <= row.parameters
        assert row.multiplies > 0
        assert row.stored == tiny.network(row.removed, method).stat().st_size
    assert all(later.kept <= row.kept for row, later in pairwise(found))


def test_a_chain_is_repeatable_and_needs_its_dense_network(tiny: chain.Job) -> None:
    job = replace(tiny, method="low_rank")
    with pytest.raises(FileNotFoundError):
        chain.run(job)
    chain.run(tiny)
    first, second = (chain.run(job) for _ in range(2))
    assert [replace(row, seconds=0) for row in first] == [replace(row, seconds=0) for row in second]


@needs_data
@pytest.mark.parametrize(("task", "metric"), [("adrenal", "AUC"), ("hippocampus", "Dice")])
def test_real_volumes_are_measured_by_their_metric(tiny: chain.Job, task: str, metric: str) -> None:
    learnt = chain.task(task, replace(TINY, subsample=4), DATA, 1)
    net = learnt.build(learnt.volumes, 2).eval()
    assert learnt.metric == metric
    assert 0 <= learnt.measure(net, learnt.volumes) <= 1
    images, labels = next(learnt.volumes.batches("train", 2))
    assert torch.isfinite(learnt.loss(net(images), labels))


def test_dice_is_one_for_the_truth_and_counts_each_class() -> None:
    labels = torch.zeros(2, 2, 2, 2, dtype=torch.long)
    labels[0, 0] = 1
    labels[1, 1] = 2
    images = torch.zeros(2, 1, 2, 2, 2)
    volumes = SimpleNamespace(batches=lambda *_: [(images, labels)], classes=("0", "1", "2"))

    class Says(torch.nn.Module):
        def __init__(self, said: torch.Tensor) -> None:
            super().__init__()
            self.said = said

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(self.said, 3).movedim(-1, 1).float()

    dice = chain.task("hippocampus", SMALL, DATA, 0).measure
    assert dice(Says(labels), volumes) == 1.0
    assert dice(Says(torch.zeros_like(labels)), volumes) == 0.5  # each sample has one class that is in neither
    half = labels.clone()
    half[0, 0, 0] = 0  # of four voxels two are found: 2 * 2 / (2 + 4)
    assert dice(Says(half), volumes) == pytest.approx((2 / 3 + 1 + 1 + 1) / 4)


def test_the_native_threshold_drops_what_is_asked_for() -> None:
    layer = WinogradConv3d(3, 5)
    layer(torch.randn(2, 3, 6, 6, 6)).square().mean().backward()
    pruner = methods.NativePruner(layer, methods.native_threshold(layer, 0.4), methods.FACTOR)
    assert pruner.step()[""] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("granularity", [Granularity(), Granularity(None, 16), Granularity(1, 1)])
def test_patterns_are_stretched_over_the_channels_of_a_wide_network(granularity: Granularity) -> None:
    torch.manual_seed(0)
    narrow, wide = (C3D(1, 3, (8, 16, 16), width=w).eval() for w in (4, 8))
    net = lrw.to_winograd(narrow, 2)
    pruner = lrw.ColumnPruner(net, 0.75, granularity=granularity)
    net(torch.randn(2, 1, 8, 16, 16)).square().mean().backward()
    pruner.observe()
    pruner.prune()
    pruner.detach()
    large = latency.stretched(wide, lrw.compress(net))
    for name, layer in named_layers(net, WinogradConv3d).items():
        mask = whole_mask(layer)
        there = whole_mask(large.get_submodule(name))
        factors = [b // a for a, b in zip(mask.shape, there.shape, strict=True)]
        assert torch.equal(there, mask.repeat_interleave(factors[1], 1).repeat_interleave(factors[2], 2))


def test_times_are_taken_of_what_training_kept(tiny: chain.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    for module in (chain, latency):  # kernels are compiled for every kept set
        monkeypatch.setattr(module, "REMOVED", (0.5,))
    monkeypatch.setitem(latency.WIDE, "digits", 8)
    table, out = tiny.folder / "rows.csv", tiny.folder / "times.csv"
    with Writer(table) as writer:
        for method in ("dense", "low_rank", "native"):
            writer.write(*chain.run(replace(tiny, method=method)))
    latency.measure(table, out, TINY, DATA, tiny.folder)
    timings = read(Timing, out)
    assert [(t.method, t.width, t.removed) for t in timings] == [
        (method, width, removed) for method in ("low_rank", "native") for width in (4, 8) for removed in (0.5,)
    ]
    for t in timings:
        assert min(t.ms, t.dense_ms, t.all_ms) > 0
        assert t.multiplies < t.all_multiplies or t.method == "native"


def row(method: str, removed: float, value: float, seed: int = 0, **other: object) -> Row:
    default = Row("small", "digits", method, seed, removed, 1 - removed, "accuracy", value, 10, 5, 20, 100, 1000, 1.0)
    return replace(default, **other)  # type: ignore[arg-type]


def both(first: float, second: float) -> list[Row]:
    return [row(m, r, v) for r in REMOVED for m, v in (("low_rank", first), ("vanilla", second))]


def test_claims_hold_or_do_not_as_the_rows_say() -> None:
    better, worse = both(0.9, 0.8), both(0.8, 0.9)
    assert claims.low_rank_beats_vanilla(better).holds
    assert not claims.low_rank_beats_vanilla(worse).holds
    dense = [row("dense", 0.0, 0.9041)]
    assert claims.little_is_lost(dense + better, 0.75, "low_rank").holds
    assert not claims.little_is_lost(dense + worse, 0.75, "low_rank").holds
    few = [row("low_rank", 0.5, 0.9, domain=10), row("vanilla", 0.5, 0.9, domain=99)]
    assert not claims.fewer_are_trained(few, "low_rank").holds
    assert claims.fewer_are_trained([few[0], replace(few[1], domain=100)], "low_rank").holds
    assert claims.best_score(better) is None


def test_a_saving_counts_where_it_is_time() -> None:
    fast = [Timing("small", "digits", "low_rank", 64, r, 10 * (1 - 0.9 * r), 50, 10, round(1e6 * (1 - r)), 10**6)
            for r in REMOVED]  # fmt: skip
    assert claims.saving_is_time(fast, ("low_rank",), "columns").holds
    slow = [replace(t, ms=10.0) for t in fast]
    assert not claims.saving_is_time(slow, ("low_rank",), "columns").holds
    irregular = [replace(t, method="native", multiplies=10**6) for t in slow]  # zeros are multiplied too
    claim = claims.saving_is_time(irregular, ("native",), "single weights")
    assert (claim.answer, "50.0% removed 0%" in claim.numbers) == ("no", True)


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    drawn = figures.draw([row("dense", 0.0, 0.95), *both(0.9, 0.8)], "digits", tmp_path / "figure.png")
    assert drawn.stat().st_size > 5000


def test_the_page_is_that_of_the_committed_results() -> None:
    assert (report.DOCS / "evidence.md").read_text() == page.text(report.EVIDENCE, report.LATENCY)
    for task in claims.tasks(read(Row, report.EVIDENCE)):
        assert (report.DOCS / "figures" / f"evidence_{task}.png").is_file()


def test_answers_are_yes_or_no() -> None:
    assert [Claim("", holds, "").answer for holds in (True, False)] == ["yes", "no"]


def test_without_data_or_a_table_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path / "run")]
    assert main(["--tasks", "adrenal", "--data", str(tmp_path), *folder]) == 2
    assert "adrenal: left out, no" in capsys.readouterr().err
    assert main(["--only", "page", *folder]) == 2
    assert "train first" in capsys.readouterr().err
