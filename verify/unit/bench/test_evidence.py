"""The evidence: chains of training on a tiny setting, their rows, outcomes, times, claims, and the committed page."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import lrw
from bench import certificate, report
from bench.evidence import bootstrap, chain, claims, figures, latency, methods, multiplies, older, page, pool, tasks
from bench.evidence.bootstrap import Interval, Score
from bench.evidence.claims import NO, OPEN, YES
from bench.evidence.command import main
from bench.evidence.outcomes import Outcomes, key
from bench.evidence.results import Results, at
from bench.evidence.rows import Row, Timing
from bench.evidence.settings import PLANNED, REMOVED, SETTINGS, SMALL, Stretch
from bench.evidence.tables import Tables
from bench.rows import Writer
from lrw.layers import named_layers
from lrw.nets import C3D
from lrw.nn import WinogradConv3d
from lrw.pruning import Granularity
from lrw.pruning.weights import whole_mask
from verify.unit.data.small import DATA, needs_data

pytestmark = pytest.mark.slow

SHORT = Stretch(dense=1, score=1, retrain=1, batch=20, decay=1e-2, samples=20)
TINY = replace(
    SMALL, name="tiny", width=4, subsample=4, clips=40, tests=60, stretches=dict.fromkeys(SMALL.stretches, SHORT)
)


@pytest.fixture
def tiny(by_tensor_operations: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> chain.Job:
    monkeypatch.setitem(SETTINGS, "tiny", TINY)
    return chain.Job("tiny", "digits", chain.DENSE, 0, DATA, tmp_path)


@pytest.mark.parametrize(
    "method",
    ["vanilla", "grouped", "low_rank_cut", "planned_low_rank", "sparse_winograd", "native", "spatial_winograd"],
)
def test_a_chain_gives_a_row_for_each_rate_with_what_is_kept(tiny: chain.Job, method: str) -> None:
    (dense,) = chain.run(tiny).rows
    found = chain.run(replace(tiny, method=method))
    planned = method == "planned_low_rank"
    assert (dense.method, dense.kept, dense.fewer) == ("dense", 1.0, 1.0)
    before = method not in ("vanilla", "grouped", "planned_low_rank")  # what is fitted needs no scores
    assert [row.removed for row in found.rows] == [*[0.0][:before], *(PLANNED if planned else REMOVED)]
    for row in (row for row in found.rows if row.removed):
        if planned:
            assert row.fewer == pytest.approx(1 / (1 - row.removed), rel=0.05)
        else:  # native pruning lets weights come back; the others drop what was asked for
            assert row.kept == pytest.approx(1 - row.removed, abs=0.35 if method == "native" else 0.02)
        assert 0 < row.domain < row.trainable <= row.parameters
        assert row.stored == tiny.network(row.removed, method).stat().st_size
    assert all(later.fewer > row.fewer for row, later in pairwise(found.rows))
    assert {name.split("/")[-1] for name in found.outcomes} == {str(row.removed) for row in found.rows}
    for row in found.rows:
        outcomes = found.outcomes[key(*row.chain, row.removed)]
        assert outcomes.shape == (60,)
        assert float(outcomes.mean()) == pytest.approx(row.value, abs=1e-5)


@pytest.mark.parametrize("method", ["cut", "fitted_f4", "by_magnitude_f4", "planned"])
def test_without_training_every_rate_starts_from_the_dense_network(tiny: chain.Job, method: str) -> None:
    chain.run(tiny)
    found = chain.run(replace(tiny, method=method)).rows
    assert [row.removed for row in found] == [*(PLANNED if method == "planned" else REMOVED)]
    assert all(later.fewer > row.fewer > 1 for row, later in pairwise(found))


def test_filters_go_with_their_weights(tiny: chain.Job) -> None:
    pytest.importorskip("torch_pruning")
    chain.run(tiny)
    found = chain.run(replace(tiny, method="filters")).rows
    for row in found[1:]:
        assert row.kept == pytest.approx(1 - row.removed, abs=0.06)  # of few channels each counts
        assert row.domain == 0
        assert row.fewer > 0.9 / (1 - row.removed)


def test_a_chain_is_repeatable_and_needs_its_dense_network(tiny: chain.Job) -> None:
    job = replace(tiny, method="low_rank")
    with pytest.raises(FileNotFoundError):
        chain.run(job)
    chain.run(tiny)
    first, second = (chain.run(job) for _ in range(2))
    assert [replace(row, seconds=0) for row in first.rows] == [replace(row, seconds=0) for row in second.rows]
    assert all(torch.equal(first.outcomes[name], second.outcomes[name]) for name in first.outcomes)


def test_a_dense_network_leaves_its_curve(tiny: chain.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    stretches = dict.fromkeys(TINY.stretches, replace(SHORT, dense=3))
    monkeypatch.setitem(SETTINGS, "tiny", replace(TINY, stretches=stretches))
    found = chain.run(tiny)
    assert [epoch.epoch for epoch in found.curve] == [1, 2, 3]
    assert found.curve[-1].value == pytest.approx(found.rows[0].value, abs=1e-5)
    assert found.curve[-1].loss < found.curve[0].loss


@needs_data
@pytest.mark.parametrize(("name", "metric"), [("adrenal", "AUC"), ("hippocampus", "Dice")])
def test_real_volumes_are_measured_by_their_metric(name: str, metric: str) -> None:
    task = tasks.task(name, TINY, DATA, 1)
    net = task.build(task.volumes, 2).eval()
    outcomes = task.of(net)
    assert task.metric == metric
    assert outcomes.shape == (len(task.volumes.test),)
    truth = task.volumes.test.labels if metric == "AUC" else None
    assert 0 <= float(bootstrap.metric(outcomes, truth)) <= 1
    images, labels = next(task.volumes.batches("train", 2, seed=1))
    again, numbers = next(task.numbered.batches("train", 2, seed=1))
    assert torch.equal(images, again)
    assert torch.equal(task.volumes.train.labels[numbers], labels)
    assert torch.isfinite(task.loss(net(images), labels))
    assert sum(len(batch) for batch in task.samples(20)) == 20


@needs_data
def test_all_seeds_together_test_every_volume_once() -> None:
    volumes = [tasks.task("hippocampus", TINY, DATA, seed).volumes for seed in range(3)]
    assert sum(len(of.test) for of in volumes) == 260
    assert all(len(of.test) + len(of.train) == 260 for of in volumes)
    told = [{image.numpy().tobytes() for image in of.test.images} for of in volumes]
    assert len(set.union(*told)) == sum(map(len, told))


def test_dice_is_one_for_the_truth_and_counts_each_class() -> None:
    labels = torch.zeros(2, 2, 2, 2, dtype=torch.long)
    labels[0, 0] = 1
    labels[1, 1] = 2

    def says(said: Tensor) -> Tensor:
        return nn.functional.one_hot(said, 3).movedim(-1, 1).float()

    assert tasks.sample_dice(says(labels), labels).tolist() == [1.0, 1.0]
    # each sample has one class that is in neither, and does not count
    assert tasks.sample_dice(says(torch.zeros_like(labels)), labels).tolist() == [0.0, 0.0]
    half = labels.clone()
    half[0, 0, 0] = 0  # of four voxels two are found: 2 * 2 / (2 + 4)
    assert tasks.sample_dice(says(half), labels).tolist() == pytest.approx([2 / 3, 1])


def test_multiplies_are_those_of_the_weights_that_are_left() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 4, 3, padding=1), nn.Conv3d(4, 2, 1))
    x = torch.randn(1, 1, 4, 4, 4)
    assert multiplies.prunable(net) == {"2"}
    assert multiplies.multiplies(net, x) == {"0": 64 * 27 * 4, "2": 64 * 27 * 16, "3": 64 * 8}
    cut = methods.cut(net, 0.75, 2)
    assert len(cut[2].geometry.positions) == 16
    assert multiplies.fewer(cut, net, x) == pytest.approx(27 * 64 / (16 * 8))
    assert multiplies.kept(cut, net) == 0.25
    whole = methods.winograd(net, 2)
    assert torch.equal(cut[2].weights(), whole[2].weights()[list(cut[2].geometry.positions)])  # type: ignore[operator,union-attr]


def test_the_native_threshold_drops_what_is_asked_for() -> None:
    layer = WinogradConv3d(3, 5)
    layer(torch.randn(2, 3, 6, 6, 6)).square().mean().backward()
    pruner = older.NativePruner(layer, older.native_threshold(layer, 0.4), older.FACTOR)
    assert pruner.step()[""] == pytest.approx(0.6, abs=0.01)


def test_methods_without_their_packages_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods.PACKAGES, "filters", ("nosuch_package",))
    assert methods.without_packages("filters") == "nosuch_package is not installed"
    assert methods.without_packages("low_rank") is None


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
        there = whole_mask(large.get_submodule(name))  # type: ignore[arg-type]
        factors = [b // a for a, b in zip(mask.shape, there.shape, strict=True)]
        assert torch.equal(there, mask.repeat_interleave(factors[1], 1).repeat_interleave(factors[2], 2))


def test_times_are_taken_of_what_training_kept(tiny: chain.Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    monkeypatch.setattr(methods.Method, "rates", (0.5,))  # kernels are compiled for every kept set
    monkeypatch.setitem(latency.WIDE, "digits", 8)
    tables = Tables(tiny.folder)
    for method in ("dense", "native"):
        pool._keep(tables, certificate.stamp(), chain.run(replace(tiny, method=method)))
    latency.measure(Tables(tiny.folder), TINY, DATA)
    timings = Tables(tiny.folder).times
    assert [(t.method, t.width, t.removed) for t in timings] == [("native", width, 0.5) for width in (4, 8)]
    for t in timings:
        assert min(t.ms, t.dense_ms, t.whole_ms, t.torch_ms) > 0
        assert t.multiplies < t.whole_multiplies
    latency.measure(Tables(tiny.folder), TINY, DATA)  # nothing is left to do
    assert Tables(tiny.folder).times == timings


# --- outcomes and intervals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [1, 8, 300, 1001])
def test_outcomes_are_kept_as_they_are(tmp_path: Path, many: int) -> None:
    generator = torch.Generator().manual_seed(many)
    right, share = torch.randint(0, 2, (many,), generator=generator).float(), torch.rand(many, generator=generator)
    Outcomes(tmp_path / "found.safetensors").add({"right": right})
    kept = Outcomes(tmp_path / "found.safetensors")
    kept.add({"share": share})
    again = Outcomes(tmp_path / "found.safetensors")
    assert torch.equal(again["right"], right)
    assert torch.equal(again["share"], share)
    assert "other" not in again
    assert not list(tmp_path.glob("*.begun"))


def test_auc_counts_pairs_that_are_in_order() -> None:
    outcomes, truth = torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1])
    assert float(bootstrap.metric(outcomes, truth)) == (1 + 0.5 + 1 + 1) / 4
    twice = torch.tensor([[1.0, 1, 2, 0], [1, 1, 1, 1]])  # the first draw has the third sample twice, not the last
    assert bootstrap.metric(outcomes, truth, twice).tolist() == [0.75, 0.875]


def test_intervals_hold_the_mean_and_shrink_with_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    widths = []
    for many in (100, 4000):
        seeds = [(torch.rand(many, generator=generator) < 0.8).float() for _ in range(3)]
        of = bootstrap.score(seeds, [None] * 3, [bootstrap.draws(many, seed) for seed in range(3)]).interval
        assert of.low < of.mean < of.high
        assert of.mean == pytest.approx(float(torch.stack(seeds).mean()), abs=1e-6)
        widths.append(of.high - of.low)
    assert widths[1] < 0.4 * widths[0]
    assert widths[0] > 0.9 * 2 * 1.96 * (0.16 / 300) ** 0.5


def test_intervals_know_that_seeds_differ() -> None:
    seeds = [torch.full((500,), value) for value in (0.7, 0.8, 0.9)]
    of = bootstrap.score(seeds, [None] * 3, [bootstrap.draws(500, seed) for seed in range(3)]).interval
    assert of.low < 0.75 < 0.85 < of.high


def test_differences_are_paired() -> None:
    generator = torch.Generator().manual_seed(0)
    first = (torch.rand(2000, generator=generator) < 0.5).float()
    second = first.clone()
    second[:20] = 1 - first[:20]
    weights = [bootstrap.draws(2000, 0)]
    one, other = (bootstrap.score([of], [None], weights) for of in (first, second))
    assert (one - other).interval.high - (one - other).interval.low < 0.3 * (one.interval.high - one.interval.low)
    assert (one - one).interval == Interval(0, 0, 0)


def score(value: float, spread: float = 0.0, seeds: int = 3) -> Score:
    drawn = value + spread * torch.linspace(-1, 1, 101, dtype=torch.float64).expand(seeds, -1)
    return Score(torch.full((seeds,), value, dtype=torch.float64), drawn)


def test_curves_are_read_between_their_points_and_nowhere_else() -> None:
    curve = [(1.0, score(0.0)), (4.0, score(0.2)), (16.0, score(0.3))]
    middle = at(curve, 2.0)
    assert middle is not None
    assert middle.interval.mean == pytest.approx(0.1)
    assert at(curve, 0.5) is at(curve, 17.0) is None


# --- claims ----------------------------------------------------------------------------------------------------------


def kept_results(folder: Path, losses: dict[tuple[str, float], float], times: list[Timing] | None = None) -> Results:
    """Of 1,000 clips that the dense network all gets right, networks lose these shares."""
    tables, rows, outcomes = Tables(folder), [], {}
    for (method, removed), lost in {("dense", 0.0): 0.0, **losses}.items():
        for seed in range(3):
            right = torch.ones(1000)
            right[: round(1000 * lost)] = 0
            outcomes[key("small", "digits", method, seed, removed)] = right
            fewer = 1 / (1 - removed)
            rows.append(Row("small", "digits", method, seed, removed, 1 - removed, "accuracy", 1 - lost, 10, 5, 20, 100,
                            fewer, 1.0))  # fmt: skip
    tables.outcomes.add(outcomes)
    for path, of in ((tables.rows_file, rows), (tables.times_file, times or [])):
        with Writer(path) as writer:
            if of:
                writer.write(*of)
    return Results(Tables(folder))


def timing(method: str, removed: float, ms: float, saved: float = 0.5) -> Timing:
    return Timing("small", "digits", method, 64, removed, ms, 10.0, 50.0, 10.0, 20.0, 4.0, round(1e6 * (1 - saved)),
                  10**6)  # fmt: skip


@pytest.mark.parametrize(("lost", "answer"), [(0.001, YES), (0.005, OPEN), (0.05, NO)])
def test_little_is_lost_where_the_whole_interval_says_so(tmp_path: Path, lost: float, answer: str) -> None:
    results = kept_results(tmp_path, {("low_rank", 0.75): lost})
    claim = claims.little_is_lost(results, "low_rank", 0.75, {"digits": 0.005})
    assert claim is not None
    assert claim.answer == answer
    assert f"digits {lost:+.4f}" in claim.numbers
    assert claims.little_is_lost(results, "low_rank", 0.5, {"digits": 0.005}) is None


def test_one_is_better_where_every_interval_says_so(tmp_path: Path) -> None:
    results = kept_results(tmp_path, {("low_rank", 0.5): 0.01, ("vanilla", 0.5): 0.05, ("grouped", 0.5): 0.0101})
    answers = [claims.better(results, *pair, "") for pair in (
        ("low_rank", "vanilla"), ("vanilla", "low_rank"), ("low_rank", "low_rank_cut"))]  # fmt: skip
    assert answers[0] is not None
    assert answers[1] is not None
    assert [answers[0].answer, answers[1].answer, answers[2]] == [YES, NO, None]


def test_a_single_seed_settles_nothing_and_others_are_not_mixed_with_it(tmp_path: Path) -> None:
    losses = {("low_rank", 0.5): 0.0, ("low_rank", 0.75): 0.1, ("grouped", 0.5): 0.0, ("grouped", 0.75): 0.0}
    times = [timing(method, removed, ms) for method in ("low_rank", "grouped") for removed, ms in ((0.5, 5), (0.75, 3))]
    results = kept_results(tmp_path, losses, times)
    results.rows = [row for row in results.rows if row.method != "grouped" or row.seed == 1]
    claim = claims.blocks_beat_columns(results)
    assert claim is not None
    assert claim.answer == OPEN
    assert "3.3 times as fast +0.1000 (+0.0" in claim.numbers
    assert claim.numbers.count("one seed") == 2
    three, one = (results.lost("digits", "low_rank", 0.5, seeds) for seeds in (None, (1,)))
    assert three is not None
    assert one is not None
    with pytest.raises(ValueError, match="scores of 3 and of 1 seeds are not paired"):
        three - one


def test_plans_are_compared_where_multiplies_are_equal(tmp_path: Path) -> None:
    losses = {("planned", 0.875): 0.02, ("fitted", 0.5): 0.01, ("fitted", 0.75): 0.05, ("fitted", 0.9): 0.2}
    claim = claims.plans_beat_rates(kept_results(tmp_path, losses), "planned", ("fitted",), by_time=False)
    assert claim is not None
    assert claim.answer == YES
    assert "8.0 times fewer +0.14" in claim.numbers  # 0.16 between 0.05 at 4 and 0.2 at 10 times fewer
    assert claims.plans_beat_rates(kept_results(tmp_path, losses), "planned", ("fitted",), by_time=True) is None


def test_a_saving_counts_where_it_is_time(tmp_path: Path) -> None:
    fast, slow = ([timing(method, 0.5, ms) for method in ("low_rank", "native")] for ms in (5.5, 9.0))
    held, not_held = (
        claims.saving_is_time(kept_results(tmp_path / name, {("low_rank", 0.5): 0.0}, times), ("low_rank",), "")
        for name, times in (("fast", fast), ("slow", slow))
        if (tmp_path / name).mkdir() is None
    )
    assert held is not None
    assert not_held is not None
    assert (held.answer, not_held.answer) == (YES, NO)
    assert "50.0% removed 90%" in held.numbers


def test_eight_bits_are_met_by_what_cannot_be_told_to_lose_more(tmp_path: Path) -> None:
    losses = {("int8", 0.0): 0.01, ("low_rank", 0.5): 0.01, ("low_rank", 0.75): 0.1}
    times = [timing("low_rank", 0.5, 5.0), timing("low_rank", 0.75, 2.0)]
    claim = claims.as_fast_as_eight_bits(kept_results(tmp_path, losses, times))
    assert claim is not None
    assert claim.answer == OPEN  # of one task; the network of 2 ms loses more
    assert "digits 5.00 ms (low_rank, 0.5" in claim.numbers


def test_figures_and_a_page_are_made_of_what_there_is(tmp_path: Path) -> None:
    losses = {("low_rank", 0.5): 0.01, ("fitted", 0.5): 0.02, ("int8", 0.0): 0.001}
    results = kept_results(tmp_path, losses, [timing("low_rank", 0.5, 5.0)])
    assert figures.draw(results, tmp_path / "figure.png").stat().st_size > 5000
    written = page.write(results.tables, tmp_path / "docs")
    text = written.read_text()
    assert "| low_rank | | +0.0100 (+0.0" in text
    assert text.count("\n| fitted | 50 % | 2.0 | 50 % | | | 100 |") == 1
    widths = {line.count("|") for line in page.lost_table(results.tables)}
    assert len(widths) == 1


def test_the_page_is_that_of_the_committed_results() -> None:
    assert (report.DOCS / "evidence.md").read_text() == page.text(report.EVIDENCE)
    for name, drawn in (("evidence", report.EVIDENCE.times), ("evidence_dense", report.EVIDENCE.curves)):
        assert (report.DOCS / "figures" / f"{name}.png").is_file() == bool(drawn)


def test_committed_rows_have_their_outcomes() -> None:
    for row in report.EVIDENCE.rows:
        assert key(*row.chain, row.removed) in report.EVIDENCE.outcomes


def test_without_data_or_a_table_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder = ["--folder", str(tmp_path / "run")]
    assert main(["--tasks", "adrenal", "--data", str(tmp_path), *folder]) == 2
    assert "adrenal: left out, no" in capsys.readouterr().err
    assert main(["--only", "page", *folder]) == 2
    assert "train first" in capsys.readouterr().err
