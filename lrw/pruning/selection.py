"""From scores to what is kept, columns or blocks of them: pure functions; ties go to the lower number."""

from collections.abc import Mapping, Sequence

Kept = tuple[int, ...]
SCOPES = ("layer", "global", "multiplies")


def select_per_layer(scores: Sequence[float], candidates: Sequence[int], keep: int) -> Kept:
    """The `keep` best-scored of the `candidates` (positions into `scores`), rising."""
    ranked = sorted(candidates, key=lambda p: (-scores[p], p))
    return tuple(sorted(ranked[:keep]))


def select_global(
    scores: Mapping[str, Sequence[float]],
    candidates: Mapping[str, Sequence[int]],
    costs: Mapping[str, float],
    budget: float,
    floors: Mapping[str, int],
) -> dict[str, Kept]:
    """Columns across layers, best score per cost first, until `budget` is spent.

    costs[name] is what one column of a layer costs. Every layer keeps its best floors[name] columns whatever the
    budget; a column that no longer fits is passed over for cheaper ones.
    """
    chosen = {name: set(select_per_layer(scores[name], candidates[name], floors[name])) for name in candidates}
    spent = sum(costs[name] * len(kept) for name, kept in chosen.items())
    rest = [
        (scores[n][p] / costs[n], n, p) for n, positions in candidates.items() for p in positions if p not in chosen[n]
    ]
    for _, name, position in sorted(rest, key=lambda entry: (-entry[0], entry[1], entry[2])):
        if spent + costs[name] <= budget:
            chosen[name].add(position)
            spent += costs[name]
    return {name: tuple(sorted(kept)) for name, kept in chosen.items()}


def cubic_sparsity(target: float, stage: int, stages: int) -> float:
    """Sparsity after `stage` of `stages`: target (1 - (1 - stage/stages)^3) (Zhu & Gupta 2017)."""
    return target * (1 - (1 - stage / stages) ** 3)
