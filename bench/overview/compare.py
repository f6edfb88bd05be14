"""Two results of one machine against each other: what changed by more than what did not change did.

Minutes differ, and virtual machines do: the peers in both results are the same programs, so how far their times are
apart says what the minutes did, by their median, and how far times are apart for no reason, by their spread.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median, stdev

FASTER, SLOWER, ALIKE, UNKNOWN = "faster", "slower", "the same", "cannot be told"
HEAD = ("", "then, ms", "now, ms", "ratio", "")
SURE = 0.95  # that not one of all is called changed by chance
FEWEST = 3  # peers' times that a spread can be told from
LEAST = 0.02  # of a time: never are two runs nearer than that


@dataclass(frozen=True)
class Timed:
    """Milliseconds of one thing that was timed: ours, and those of its peers by name; `versions` of the peers."""

    name: str
    ours: float
    peers: dict[str, float]
    versions: str


@dataclass(frozen=True)
class Change:
    """One thing then and now, in ms; `ratio` is now to then, less what the minutes did."""

    name: str
    then: float
    now: float
    ratio: float
    verdict: str

    @property
    def cells(self) -> tuple[str, ...]:
        """Its row of a table."""
        return self.name, f"{self.then:.3g}", f"{self.now:.3g}", f"{self.ratio:.3f}", self.verdict


@dataclass(frozen=True)
class Comparison:
    """All changes; `minutes` is how much slower all peers were now, `noise` how far one is from that, as shares."""

    changes: tuple[Change, ...]
    minutes: float | None
    noise: float | None

    @property
    def told(self) -> str:
        """What the changes are worth."""
        if self.noise is None or self.minutes is None:
            return "Peers of the same versions are too few to tell noise from change."
        return f"Peers took {self.minutes:+.1%} of their times of then, {self.noise:.1%} apart; ratios are less that."


def compare(then: Sequence[Timed], now: Sequence[Timed]) -> Comparison:
    """What is in both, in the order of `now`."""
    before = {each.name: each for each in then}
    pairs = [(before[each.name], each) for each in now if each.name in before]
    ratios = [
        math.log(new.peers[peer] / old.peers[peer])
        for old, new in pairs if old.versions == new.versions
        for peer in old.peers.keys() & new.peers.keys()
    ]  # fmt: skip
    known = len(ratios) >= FEWEST
    drift, noise = (median(ratios), max(stdev(ratios), LEAST)) if known else (0.0, math.inf)
    far = _spreads(len(pairs), len(ratios)) * noise if known else math.inf
    changes = tuple(_change(old, new, drift, far) for old, new in pairs)
    return Comparison(changes, math.expm1(drift) if known else None, math.expm1(noise) if known else None)


def _spreads(count: int, ratios: int) -> float:
    """How many spreads one of so many is apart that is hardly so by chance: of many, some are far from the rest, and
    a spread and a median of few `ratios` are rough themselves.

    Student's quantile of ratios - 1 degrees of freedom out of the normal one (Abramowitz and Stegun, 26.7.5), times
    what the median's own error adds.
    """
    z, free = NormalDist().inv_cdf(1 - (1 - SURE) / 2 / max(count, 1)), ratios - 1
    terms = ((1, 1), 4), ((5, 16, 3), 96), ((3, 19, 17, -15), 384)
    powers = (range(2 * len(of) - 1, 0, -2) for of, _ in terms)
    student = z + sum(
        sum(c * z**power for c, power in zip(of, exponents, strict=True)) / below / free**i
        for i, ((of, below), exponents) in enumerate(zip(terms, powers, strict=True), 1)
    )
    return student * math.sqrt(1 + math.pi / (2 * ratios))


def _change(old: Timed, new: Timed, drift: float, far: float) -> Change:
    change = math.log(new.ours / old.ours) - drift
    verdict = UNKNOWN if far == math.inf else ALIKE if abs(change) <= far else FASTER if change < 0 else SLOWER
    return Change(new.name, old.ours, new.ours, math.exp(change), verdict)
