"""What a run found, asked by name: scores of networks with their bootstraps, what they lost, what they cost."""

from functools import cached_property
from itertools import pairwise
from math import log

from torch import Tensor

from bench.evidence.bootstrap import Score, draws, score
from bench.evidence.chain import DENSE
from bench.evidence.latency import WIDE, kind
from bench.evidence.outcomes import TRUTH, key
from bench.evidence.rows import Row, Timing, select
from bench.evidence.settings import SETTINGS
from bench.evidence.tables import Tables
from bench.evidence.tasks import AUC

Curve = list[tuple[float, Score]]
Seeds = tuple[int, ...] | None


class Results:
    """The networks of the setting that ran last. Numbers there are none of are None."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.setting = SETTINGS[tables.rows[-1].setting]
        self.rows = [row for row in tables.rows if row.setting == self.setting.name]
        self.times = [t for t in tables.times if t.setting == self.setting.name]
        self._scores: dict[tuple[str, str, float, tuple[int, ...]], Score] = {}
        self._draws: dict[tuple[str, int], Tensor] = {}

    @cached_property
    def tasks(self) -> list[str]:
        """In the order in which they ran."""
        return list(dict.fromkeys(row.task for row in self.rows))

    def of(self, task: str, method: str) -> list[Row]:
        """A method's rows."""
        return [row for row in self.rows if (row.task, row.method) == (task, method)]

    def rates(self, task: str, method: str) -> list[float]:
        """At which there is a network, rising."""
        return sorted({row.removed for row in self.of(task, method)})

    def row(self, task: str, method: str, removed: float) -> Row | None:
        """The first seed's."""
        return next(iter(select(self.rows, task, method, removed)), None)

    def seeds(self, task: str, method: str, removed: float) -> tuple[int, ...]:
        return tuple(row.seed for row in select(self.rows, task, method, removed))

    def score(self, task: str, method: str, removed: float, seeds: tuple[int, ...] | None = None) -> Score | None:
        """Of those seeds' networks, or of all there are."""
        seeds = self.seeds(task, method, removed) if seeds is None else seeds
        place = task, method, removed, seeds
        if not seeds or not set(seeds) <= set(self.seeds(task, method, removed)):
            return None
        if place not in self._scores:
            outcomes = [self._outcomes(task, method, seed, removed) for seed in seeds]
            ranked = next(row.metric for row in self.rows if row.task == task) == AUC
            truths = [self._outcomes(task, TRUTH, seed, "") if ranked else None for seed in seeds]
            weights = [self._drawn(task, seed, len(of)) for seed, of in zip(seeds, outcomes, strict=True)]
            self._scores[place] = score(outcomes, truths, weights)
        return self._scores[place]

    def difference(
        self, task: str, first: tuple[str, float], second: tuple[str, float], seeds: Seeds = None
    ) -> Score | None:
        """The score of one network less that of another, over those seeds, or all that have both."""
        both = tuple(sorted({*self.seeds(task, *first)} & {*self.seeds(task, *second)}))
        seeds = both if seeds is None else seeds
        ours, theirs = (self.score(task, *of, seeds) for of in (first, second))
        return None if ours is None or theirs is None else ours - theirs

    def lost(self, task: str, method: str, removed: float, seeds: Seeds = None) -> Score | None:
        """Against the dense networks of the same seeds."""
        return self.difference(task, (DENSE, 0.0), (method, removed), seeds)

    def timing(self, task: str, method: str, removed: float, width: int | None = None) -> Timing | None:
        """Of networks of that kind, of the papers' width unless told."""
        place = task, kind(method), removed, WIDE[task] if width is None else width
        return next((t for t in self.times if (t.task, t.method, t.removed, t.width) == place), None)

    def by_multiplies(self, task: str, method: str, seeds: Seeds = None) -> Curve:
        """What is lost by how many times fewer the multiplies are, rising; over those seeds, or all there are."""
        rows = [row for row in self.of(task, method) if row.removed and row.seed == 0]
        return self._curve(task, method, {row.removed: row.fewer for row in rows}, seeds)

    def by_time(self, task: str, method: str, seeds: Seeds = None) -> Curve:
        """What is lost by how many times as fast a network is as the dense one accelerated, rising; likewise."""
        times = {removed: self.timing(task, method, removed) for removed in self.rates(task, method) if removed}
        faster = {removed: t.dense_ms / t.ms for removed, t in times.items() if t is not None}
        return self._curve(task, method, faster, seeds)

    def common(self, task: str, *methods: str) -> tuple[int, ...]:
        """The seeds that all of `methods` have."""
        each = [{row.seed for row in self.of(task, method)} for method in methods]
        return tuple(sorted(set.intersection(*each)))

    def _curve(self, task: str, method: str, xs: dict[float, float], seeds: Seeds) -> Curve:
        losses = {removed: self.lost(task, method, removed, seeds) for removed in xs}
        found = [(x, loss) for removed, x in xs.items() if (loss := losses[removed]) is not None]
        return sorted(found, key=lambda point: point[0])

    def _outcomes(self, task: str, method: str, seed: int, removed: float | str) -> Tensor:
        return self.tables.outcomes[key(self.setting.name, task, method, seed, removed)]

    def _drawn(self, task: str, seed: int, samples: int) -> Tensor:
        if (task, seed) not in self._draws:
            self._draws[task, seed] = draws(samples, seed)
        return self._draws[task, seed]


def at(curve: Curve, x: float) -> Score | None:
    """A curve's loss there, between its neighbours by the logarithm; None outside."""
    for (left, first), (right, second) in pairwise(curve):
        if left <= x <= right:
            return first if left == right else first.between(second, log(x / left) / log(right / left))
    return None
