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
    costs: Mapping[str, float | Sequence[float]],
    budget: float,
    floors: Mapping[str, int],
) -> dict[str, Kept]:
    """Columns across layers, best score per cost first, until `budget` is spent.

    costs[name] is what a column of a layer costs, or what each does. Every layer keeps its best floors[name] columns
    whatever the budget; a column that no longer fits is passed over for cheaper ones.
    """

    def cost(name: str, position: int) -> float:
        value = costs[name]
        return value[position] if isinstance(value, Sequence) else value

    chosen = {name: set(select_per_layer(scores[name], candidates[name], floors[name])) for name in candidates}
    spent = sum(cost(name, p) for name, kept in chosen.items() for p in kept)
    rest = [
        (scores[n][p] / cost(n, p), n, p)
        for n, positions in candidates.items()
        for p in positions
        if p not in chosen[n]
    ]
    slack = 1e-9 * budget  # shares are fractions, and their sums are rounded
    for _, name, position in sorted(rest, key=lambda entry: (-entry[0], entry[1], entry[2])):
        if spent + cost(name, position) <= budget + slack:
            chosen[name].add(position)
            spent += cost(name, position)
    return {name: tuple(sorted(kept)) for name, kept in chosen.items()}


def cubic_sparsity(target: float, stage: int, stages: int) -> float:
    """Sparsity after `stage` of `stages`: target (1 - (1 - stage/stages)^3) (Zhu & Gupta 2017)."""
    return target * (1 - (1 - stage / stages) ** 3)
