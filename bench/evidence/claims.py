"""The claims, each answered from rows and times: yes, no, or that this data cannot tell, with its numbers."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from bench.cpu.inference import Row as Layer
from bench.evidence.bootstrap import Interval, Score
from bench.evidence.results import Curve, Results, at
from bench.evidence.settings import EIGHT_BITS, REMOVED
from bench.rows import read

LAYERS = Path(__file__).parents[1] / "results" / "cpu.csv"
YES, NO, OPEN = "yes", "no", "cannot be told with this data"
FEWER = 10.0
OF_SAVING = 0.8
MARGIN = 0.005  # of the metric: what counts as an equal loss
OURS = ("fitted", "fitted_f4", "low_rank", "low_rank_f4", "planned", "planned_low_rank", "grouped")
IRREGULAR = ("sparse_winograd", "native", "spatial_winograd")
UNTRAINED_BARS = (("fitted", 0.5, {"digits": 0.015, "hippocampus": 0.005}),
                  ("fitted", 0.75, {"digits": 0.05, "hippocampus": 0.02}),
                  ("fitted_f4", 0.5, {"digits": 0.04, "hippocampus": 0.03}))  # fmt: skip
TRAINED_BARS = (("low_rank", 0.75, 0.005), ("low_rank", 0.875, 0.01), ("low_rank_f4", 0.5, 0.005),
                ("low_rank_f4", 0.75, 0.015))  # fmt: skip
ALL_COLUMNS = 0.003  # of the metric, that F(4,3) with every column may lose
_SAVED = f"At least {OF_SAVING:.0%} of the multiplies saved are saved as time"


@dataclass(frozen=True)
class Claim:
    """What was claimed, the answer, and the numbers."""

    text: str
    answer: str
    numbers: str


def claims(results: Results) -> list[Claim]:
    """All claims there are networks for."""
    answered: Iterable[Claim | None] = (
        *(little_is_lost(results, method, removed, bars) for method, removed, bars in UNTRAINED_BARS),
        *(little_is_lost(results, method, removed, dict.fromkeys(results.tasks, most))
          for method, removed, most in TRAINED_BARS),
        *(little_is_lost(results, method, 0.0, dict.fromkeys(results.tasks, ALL_COLUMNS))
          for method in ("low_rank_f4", "vanilla_f4")),
        better(results, "low_rank", "vanilla", "Training the low-rank factors (rank 8) beats training all of U"),
        better(results, "low_rank", "low_rank_cut", "Training from fitted columns beats training from a plain cut"),
        better(results, "low_rank_f4", "paper_units_f4", "At F(4,3) factors train better in units of 1/F_p"),
        better(results, "vanilla_f4", "plain_vanilla_f4", "At F(4,3) U trains better in units of 1/F_p"),
        better(results, "fitted_f4", "by_importance_f4",
               "At F(4,3) elimination chooses better columns than weighted magnitude"),
        better(results, "by_importance_f4", "by_magnitude_f4",
               "The score trap is real: at F(4,3) plain magnitude chooses worse columns than weighted magnitude"),
        fewer_are_trained(results),
        *(plans_beat_rates(results, planned, uniform, by_time=timed)
          for timed in (False, True)
          for planned, uniform in (("planned", ("fitted", "fitted_f4")),
                                   ("planned_low_rank", ("low_rank", "low_rank_f4")))),
        blocks_beat_columns(results),
        as_fast_as_eight_bits(results),
        layers_save_time(),
        saving_is_time(results, ("low_rank", "low_rank_f4"), "columns, whole networks of the papers' width"),
        saving_is_time(results, IRREGULAR, "single weights, whole networks of the papers' width"),
    )  # fmt: skip
    return [claim for claim in answered if claim is not None]


def little_is_lost(results: Results, method: str, removed: float, bars: Mapping[str, float]) -> Claim | None:
    """Against the dense networks, no more than the bar of each task."""
    losses = {task: results.lost(task, method, removed) for task in bars if task in results.tasks}
    found = {task: loss.interval for task, loss in losses.items() if loss is not None}
    if not found:
        return None
    limits = dict.fromkeys(bars[task] for task in found)
    most = f"{next(iter(limits)):g}" if len(limits) == 1 else ", ".join(f"{bars[t]:g} ({t})" for t in found)
    share = f"{removed:.1%} of the columns gone" if removed else "all columns"
    return Claim(
        f"{NAMES[method]}, {share}: at most {most} is lost",
        _all(_below(interval, bars[task]) for task, interval in found.items()),
        _numbers(found),
    )


def better(results: Results, ours: str, theirs: str, text: str) -> Claim | None:
    """At every rate of every task that has both."""
    gains = {
        (task, removed): gain.interval
        for task in results.tasks
        for removed in REMOVED
        if (gain := results.difference(task, (ours, removed), (theirs, removed))) is not None
    }
    if not gains:
        return None
    by_task = {task: [f"{removed:.1%} {gain}" for (name, removed), gain in gains.items() if name == task]
               for task in dict.fromkeys(task for task, _ in gains)}  # fmt: skip
    numbers = "; ".join(f"{task} {', '.join(texts)}" for task, texts in by_task.items())
    return Claim(text, _all(_above(gain) for gain in gains.values()), f"gained: {numbers}")


def fewer_are_trained(results: Results) -> Claim | None:
    """In the Winograd layers, against all of U."""
    ratios = {}
    for task in results.tasks:
        ours, theirs = (results.row(task, method, 0.5) for method in ("low_rank", "vanilla"))
        if ours is not None and theirs is not None:
            ratios[task] = theirs.domain / ours.domain
    if not ratios:
        return None
    return Claim(
        f"Rank 8 at F(2,3): at least {FEWER:.0f} times fewer trainable parameters than all of U",
        YES if min(ratios.values()) >= FEWER else NO,
        "; ".join(f"{task} {ratio:.1f}x" for task, ratio in ratios.items()),
    )


def plans_beat_rates(results: Results, planned: str, uniform: tuple[str, ...], *, by_time: bool) -> Claim | None:
    """Where both can be had, against the better of the uniform ones at equal multiplies, or at equal time."""
    gains = {}
    for task in results.tasks:
        seeds, of = results.common(task, planned, *uniform), results.by_time if by_time else results.by_multiplies
        plan, rates = of(task, planned, seeds), [of(task, m, seeds) for m in uniform]
        gains |= {(task, x): gain for x, loss in plan if (gain := _gain(loss, rates, x)) is not None}
    if not gains:
        return None
    what, unit = ("milliseconds", "as fast") if by_time else ("multiplies", "fewer")
    numbers = "; ".join(f"{task} {x:.1f} times {unit} {gain}" for (task, x), gain in gains.items())
    trained = "with rank 8 trained" if planned.endswith("low_rank") else "without training"
    return Claim(f"Plans beat uniform rates at equal {what}, {trained}",
                 _all(_above(gain) for gain in gains.values()), f"gained: {numbers}")  # fmt: skip


def blocks_beat_columns(results: Results) -> Claim | None:
    """At equal time."""
    gains = {}
    for task in results.tasks:
        seeds = results.common(task, "low_rank", "grouped")
        columns = results.by_time(task, "low_rank", seeds)
        gains |= {(task, x): gain for x, loss in results.by_time(task, "grouped", seeds)
                  if (gain := _gain(loss, [columns], x)) is not None}  # fmt: skip
    if not gains:
        return None
    numbers = "; ".join(f"{task} {x:.1f} times as fast {gain}" for (task, x), gain in gains.items())
    return Claim("Columns in blocks beat whole columns at equal milliseconds",
                 _all(_above(gain) for gain in gains.values()), f"gained: {numbers}")  # fmt: skip


def as_fast_as_eight_bits(results: Results) -> Claim | None:
    """The fastest network of ours that loses at most MARGIN more than OpenVINO's in 8 bits, by its whole interval."""
    held, texts = [], []
    for task in results.tasks:
        found = []
        for method in OURS:
            for removed in results.rates(task, method):
                gain = results.difference(task, (method, removed), (EIGHT_BITS, 0.0))
                timing = results.timing(task, method, removed)
                if (
                    gain is not None
                    and timing is not None
                    and timing.int8_ms is not None
                    and gain.interval.low >= -MARGIN
                ):
                    found.append((timing.ms / timing.int8_ms, method, removed, gain.interval, timing))
        if not found:
            continue
        ratio, method, removed, gained, timing = min(found, key=lambda one: one[0])
        held.append(ratio <= 1)
        texts.append(
            f"{task} {timing.ms:.2f} ms ({method}, {removed:.4g}, gains {gained}) against {timing.int8_ms:.2f}"
        )
    if not held:
        return None
    answer = YES if sum(held) >= 2 else NO if held.count(False) >= 2 else OPEN
    return Claim(f"With at most {MARGIN:g} lost beyond OpenVINO's 8 bits a pruned network is as fast, on two tasks",
                 answer, "; ".join(texts))  # fmt: skip


def layers_save_time() -> Claim:
    """The committed benchmark of layers: time saved over multiplies saved, transforms and all."""
    found = read(Layer, LAYERS)
    whole = {row.case: row for row in found if row.share == 1}
    saved: dict[float, list[float]] = {}
    for row in (row for row in found if row.share < 1):
        time, multiplies = row.lrw_ms / whole[row.case].lrw_ms, row.multiplies / whole[row.case].multiplies
        saved.setdefault(row.share, []).append((1 - time) / (1 - multiplies))
    return Claim(
        f"{_SAVED}: columns, single layers",
        _all(YES if mean(shares) >= OF_SAVING else NO for shares in saved.values()),
        "share of the saving, layers of nox -s bench: "
        + ", ".join(_of_rate(1 - share, shares) for share, shares in saved.items()),
    )


def saving_is_time(results: Results, methods: tuple[str, ...], what: str) -> Claim | None:
    """Share of the time of a network with all its columns that is saved, over the share of its multiplies."""
    saved: dict[float, list[float]] = {}
    for task in results.tasks:
        for method in methods:
            for removed in REMOVED:
                t = results.timing(task, method, removed)
                if t is not None:
                    share = (1 - t.ms / t.whole_ms) / (1 - t.multiplies / t.whole_multiplies)
                    saved.setdefault(removed, []).append(share)
    if not saved:
        return None
    return Claim(
        f"{_SAVED}: {what}",
        _all(YES if mean(shares) >= OF_SAVING else NO for shares in saved.values()),
        "share of the saving: " + ", ".join(_of_rate(removed, shares) for removed, shares in saved.items()),
    )


def _gain(loss: Score, others: list[Curve], x: float) -> Interval | None:
    """How much less is lost than by the best of `others` there."""
    there = [score for curve in others if (score := at(curve, x)) is not None]
    if not there:
        return None
    return (min(there, key=lambda score: score.interval.mean) - loss).interval


def _below(interval: Interval, most: float) -> str:
    return _told(interval.high <= most, interval.low > most, interval)


def _above(interval: Interval) -> str:
    return _told(interval.low > 0, interval.high < 0, interval)


def _told(held: bool, failed: bool, interval: Interval) -> str:
    """A single seed tells of that one network."""
    return OPEN if interval.seeds == 1 else YES if held else NO if failed else OPEN


def _all(answers: Iterable[str]) -> str:
    """Of several: one no is a no."""
    there = list(answers)
    return NO if NO in there else OPEN if OPEN in there else YES


def _numbers(found: Mapping[str, Interval]) -> str:
    return "lost: " + "; ".join(f"{task} {interval}" for task, interval in found.items())


def _of_rate(removed: float, shares: list[float]) -> str:
    return f"{removed:.1%} removed {mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


NAMES = {
    "fitted": "No training, F(2,3)",
    "fitted_f4": "No training, F(4,3)",
    "low_rank": "Rank 8 trained, F(2,3)",
    "low_rank_f4": "Rank 8 trained, F(4,3)",
    "vanilla_f4": "All of U trained, F(4,3)",
}
