"""The claims, each answered from rows and times: yes or no, with its numbers."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from bench.cpu.inference import Row as Layer
from bench.evidence.chain import DENSE
from bench.evidence.latency import WIDE, Timing
from bench.evidence.rows import Row, select
from bench.evidence.settings import LARGE_TILE, REMOVED, SCORES
from bench.rows import read

LAYERS = Path(__file__).parents[1] / "results" / "cpu.csv"
ALLOWED = {0.75: 0.005, 0.875: 0.01}  # loss of the metric, by share removed
FEWER = 10.0
OF_SAVING = 0.8
OURS = ("low_rank", "distilled", "grouped")
_SAVED = f"At least {OF_SAVING:.0%} of the multiplies saved are saved as time"
IRREGULAR = ("sparse_winograd", "native", "spatial_winograd")


@dataclass(frozen=True)
class Claim:
    """What was claimed, whether it held, and by how much."""

    text: str
    holds: bool
    numbers: str

    @property
    def answer(self) -> str:
        """Yes or no."""
        return "yes" if self.holds else "no"


def claims(rows: list[Row], timings: list[Timing]) -> list[Claim]:
    """All claims there are rows for."""
    answered: Iterable[Claim | None] = (
        low_rank_beats_vanilla(rows),
        *(
            little_is_lost(rows, removed, method)
            for removed in ALLOWED
            for method in ("low_rank", "distilled", "grouped")
        ),
        *(fewer_are_trained(rows, method) for method in ("low_rank", "low_rank_4")),
        layers_save_time(),
        saving_is_time(timings, ("vanilla", "low_rank", "distilled"), "columns"),
        saving_is_time(timings, ("grouped",), "grouped columns"),
        saving_is_time(timings, IRREGULAR, "single weights"),
        grouped_go_further(rows),
        best_score(rows),
        score_trap(rows),
    )
    return [claim for claim in answered if claim is not None]


def low_rank_beats_vanilla(rows: list[Row]) -> Claim | None:
    """Seed by seed, at every rate of every task."""
    gains = {
        (task, removed): difference(rows, task, "low_rank", "vanilla", removed)
        for task in tasks(rows)
        for removed in REMOVED
    }
    gains = {key: gain for key, gain in gains.items() if gain}
    if not gains:
        return None
    better = sum(mean(gain) > 0 for gain in gains.values())
    text = "; ".join(f"{task} {_rates(gains, task)}" for task in dict.fromkeys(task for task, _ in gains))
    return Claim(
        "At equal sparsity training the low-rank factors (rank 8) beats training all of U",
        better == len(gains),
        f"better in {better} of {len(gains)}; mean difference at {_percent(REMOVED)}: {text}",
    )


def little_is_lost(rows: list[Row], removed: float, method: str) -> Claim | None:
    """Against the dense network of the same seed."""
    losses = {task: difference(rows, task, DENSE, method, removed) for task in tasks(rows)}
    losses = {task: loss for task, loss in losses.items() if loss}
    if not losses:
        return None
    allowed = ALLOWED[removed]
    return Claim(
        f"{_NAMES[method]}: with {removed:.1%} removed at most {allowed:g} is lost",
        all(mean(loss) <= allowed for loss in losses.values()),
        "; ".join(f"{task} {_signed(mean(loss))} (seeds {_list(loss)})" for task, loss in losses.items()),
    )


def fewer_are_trained(rows: list[Row], method: str) -> Claim | None:
    """In the Winograd layers, against all of U."""
    ratios = {}
    for task in tasks(rows):
        ours, theirs = select(rows, task, method, 0.5), select(rows, task, "vanilla", 0.5)
        if ours and theirs:
            ratios[task] = theirs[0].domain / ours[0].domain
    if not ratios:
        return None
    return Claim(
        f"{_NAMES[method]}: at least {FEWER:.0f} times fewer trainable parameters than all of U",
        min(ratios.values()) >= FEWER,
        "; ".join(f"{task} {ratio:.1f}x" for task, ratio in ratios.items()),
    )


def saving_is_time(timings: list[Timing], methods: tuple[str, ...], what: str) -> Claim | None:
    """Whole networks of the papers' width: share of time saved over share of weights' multiplies saved."""
    found = [t for t in timings if t.method in methods and t.width == WIDE[t.task]]
    if not found:
        return None
    shares = {t: (1 - t.ms / t.all_ms) / _nominal(t) for t in found}
    by_rate = {r: [share for t, share in shares.items() if t.removed == r] for r in REMOVED}
    return Claim(
        f"{_SAVED}: {what}, whole networks, F(2,3)",
        all(mean(of_rate) >= OF_SAVING for of_rate in by_rate.values()),
        "share of the saving: " + ", ".join(_of_rate(removed, shares) for removed, shares in by_rate.items()),
    )


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
        all(mean(shares) >= OF_SAVING for shares in saved.values()),
        "share of the saving, layers of nox -s bench: "
        + ", ".join(_of_rate(1 - share, shares) for share, shares in saved.items()),
    )


def grouped_go_further(rows: list[Row]) -> Claim | None:
    """Highest rate at which no more than the claims allow is lost."""
    texts, further = [], []
    for task in tasks(rows):
        reach = {}
        for method in ("low_rank", "grouped"):
            losses = {r: difference(rows, task, DENSE, method, r) for r in REMOVED}
            if not all(losses.values()):
                return None
            reach[method] = max((r for r, loss in losses.items() if mean(loss) <= ALLOWED[0.875]), default=0.0)
        last = mean(difference(rows, task, "grouped", "low_rank", REMOVED[-1]))
        further.append(reach["grouped"] > reach["low_rank"])
        texts.append(f"{task} {reach['grouped']:.1%} against {reach['low_rank']:.1%} (difference at "
                     f"{REMOVED[-1]:.2%}: {_signed(last)})")  # fmt: skip
    return Claim("Grouped columns hold the metric (within 0.01) at a higher rate than whole columns",
                 all(further), "; ".join(texts)) if texts else None  # fmt: skip


def best_score(rows: list[Row]) -> Claim | None:
    """Mean over rates and seeds."""
    means = _score_means(rows, ("low_rank", *SCORES), "digits")
    if means is None:
        return None
    ranked = sorted(means, key=lambda name: -means[name])
    return Claim(
        "The default score, magnitude times gradient (product), is the best of the five",
        ranked[0] == "low_rank",
        "digits, mean over rates: "
        + ", ".join(f"{'product' if n == 'low_rank' else n} {means[n]:.4f}" for n in ranked),
    )


def score_trap(rows: list[Row]) -> Claim | None:
    """Plain magnitude ranks the scaling of the transforms: that must cost."""
    large, small = (_score_means(rows, methods, "digits") for methods in (LARGE_TILE, ("low_rank", "magnitude")))
    if large is None or small is None:
        return None
    return Claim(
        "The score trap is real: at F(4,3) plain magnitude does worse than scores that do not depend on scaling",
        large["f4_magnitude"] < min(large["f4_product"], large["f4_weighted_magnitude"]),
        "digits, mean over rates: "
        + ", ".join(f"{name[3:]} {value:.4f}" for name, value in large.items())
        + f"; at F(2,3): product {small['low_rank']:.4f}, magnitude {small['magnitude']:.4f}",
    )


def difference(rows: list[Row], task: str, first: str, second: str, removed: float) -> list[float]:
    """Metric of `first` less that of `second`, seed by seed; the dense network has nothing removed."""
    values = []
    for method in (first, second):
        found = select(rows, task, method, 0.0 if method == DENSE else removed)
        values.append({row.seed: row.value for row in found})
    return [values[0][seed] - values[1][seed] for seed in sorted(values[0].keys() & values[1].keys())]


def tasks(rows: list[Row]) -> list[str]:
    """In the order of the rows."""
    return list(dict.fromkeys(row.task for row in rows))


def spread(values: list[float]) -> float:
    """Standard deviation over seeds, 0 for one."""
    return stdev(values) if len(values) > 1 else 0.0


def _score_means(rows: list[Row], methods: tuple[str, ...], task: str) -> dict[str, float] | None:
    found = {m: [row.value for r in REMOVED for row in select(rows, task, m, r)] for m in methods}
    return {m: mean(values) for m, values in found.items()} if all(found.values()) else None


def _nominal(t: Timing) -> float:
    """Share of multiplies that removing `t.removed` saves: as computed, or of the products where it computes zeros."""
    return t.removed if t.method in IRREGULAR else 1 - t.multiplies / t.all_multiplies


def _rates(gains: dict[tuple[str, float], list[float]], task: str) -> str:
    return ", ".join(_signed(mean(gain)) for (name, _), gain in gains.items() if name == task)


def _percent(shares: Iterable[float]) -> str:
    return ", ".join(f"{share:.4g} %" for share in (100 * s for s in shares))


def _of_rate(removed: float, shares: list[float]) -> str:
    return f"{removed:.1%} removed {mean(shares):.0%} ({min(shares):.0%} to {max(shares):.0%})"


def _signed(value: float) -> str:
    return f"{value:+.4f}"


def _list(values: list[float], text: Callable[[float], str] = _signed) -> str:
    return ", ".join(map(text, values))


_NAMES = {
    "low_rank": "Rank 8",
    "low_rank_4": "Rank 4",
    "distilled": "Rank 8, distilled",
    "grouped": "Rank 8, grouped columns",
}
