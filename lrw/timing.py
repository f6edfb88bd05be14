"""Timing on shared machines: candidates take turns inside one process, medians and their ratios count."""

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np


def interleaved(
    candidates: Mapping[str, Callable[[], object]], *, seconds: float = 1.0, rounds: tuple[int, int] = (5, 50)
) -> dict[str, float]:
    """Median wall seconds of each candidate, of the same `turns`."""
    times = turns(candidates, seconds=seconds, rounds=rounds)
    return {name: float(np.median(values)) for name, values in times.items()}


def turns(
    candidates: Mapping[str, Callable[[], object]], *, seconds: float = 1.0, rounds: tuple[int, int] = (5, 50)
) -> dict[str, list[float]]:
    """Wall seconds of each candidate's calls: two warm-up calls, then turns A B A B until `seconds` are spent.

    Between rounds[0] and rounds[1] turns are taken whatever the clock says.
    """
    for call in candidates.values():
        call()
        call()
    times: dict[str, list[float]] = {name: [] for name in candidates}
    least, most = rounds
    begin = perf_counter()
    for turn in range(most):
        if turn >= least and perf_counter() - begin > seconds:
            break
        for name, call in candidates.items():
            start = perf_counter()
            call()
            times[name].append(perf_counter() - start)
    return times
