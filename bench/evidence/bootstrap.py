"""How sure a difference is: a paired bootstrap over test samples and seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt

import torch
from torch import Tensor

RESAMPLED = 1000
SURE = 0.95


def metric(outcomes: Tensor, truth: Tensor | None, weights: Tensor | None = None) -> Tensor:
    """The mean of outcomes [n], or with the `truth` [n] of two classes how often one of class 1 outranks one of class 0
    (AUC; equals count half); with `weights` [R, n], how often each sample was drawn, the same for each draw [R]."""
    drawn = torch.ones(1, len(outcomes)) if weights is None else weights
    if truth is None:
        found = (drawn @ outcomes).double() / len(outcomes)
    else:
        ones, zeros = truth.bool(), ~truth.bool()
        apart = outcomes[ones, None] - outcomes[zeros]
        wins = (apart > 0).float() + 0.5 * (apart == 0).float()
        pairs = drawn[:, ones].sum(1) * drawn[:, zeros].sum(1)
        found = ((drawn[:, ones] @ wins) * drawn[:, zeros]).sum(1).double() / pairs
    return found[0] if weights is None else found


@dataclass(frozen=True)
class Interval:
    """A mean with the ends between which it lies in 95 of 100 draws, and of how many seeds it is."""

    mean: float
    low: float
    high: float
    seeds: int = 1

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f}{', one seed' * (self.seeds == 1)})"


@dataclass(frozen=True, eq=False)
class Score:
    """A network's metric, seed by seed: as it is, and drawn anew [seeds, R]. Scores of the same samples are subtracted
    and weighed draw by draw, which is what makes intervals of differences paired."""

    values: Tensor
    drawn: Tensor

    def __sub__(self, other: "Score") -> "Score":
        """Raises ValueError for scores of other seeds."""
        if len(self.values) != len(other.values):
            raise ValueError(f"scores of {len(self.values)} and of {len(other.values)} seeds are not paired")
        return Score(self.values - other.values, self.drawn - other.drawn)

    def between(self, other: "Score", share: float) -> "Score":
        """That much of the way to the other."""
        values, drawn = (torch.lerp(a, b, share) for a, b in ((self.values, other.values), (self.drawn, other.drawn)))
        return Score(values, drawn)

    @cached_property
    def interval(self) -> Interval:
        """Over samples and seeds: seeds are drawn anew too; of a single seed over samples alone."""
        seeds, many = self.drawn.shape
        generator = torch.Generator().manual_seed(1)
        chosen = torch.randint(seeds, (many, seeds), generator=generator)
        draws = torch.stack([torch.randperm(many, generator=generator) for _ in range(seeds)], dim=1)
        means = self.drawn[chosen, draws].mean(1)
        ends = torch.tensor([(1 - SURE) / 2, (1 + SURE) / 2], dtype=means.dtype)
        mean = float(self.values.mean())
        low, high = torch.quantile(means, ends).tolist()
        few = sqrt(seeds / (seeds - 1)) if seeds > 1 else 1.0  # seeds drawn with replacement vary by less than seeds do
        return Interval(mean, mean + few * (low - mean), mean + few * (high - mean), seeds)


def draws(samples: int, seed: int) -> Tensor:
    """How often each sample is drawn, RESAMPLED times over: float32 [R, n]."""
    generator = torch.Generator().manual_seed(seed)
    rows = [
        torch.bincount(torch.randint(samples, (samples,), generator=generator), minlength=samples)
        for _ in range(RESAMPLED)
    ]
    return torch.stack(rows).float()


def score(outcomes: Sequence[Tensor], truths: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Score:
    """Of a network's outcomes seed by seed, with how often samples are drawn."""
    values = [metric(found, truth) for found, truth in zip(outcomes, truths, strict=True)]
    drawn = [metric(*of) for of in zip(outcomes, truths, weights, strict=True)]
    return Score(torch.stack(values), torch.stack(drawn))
