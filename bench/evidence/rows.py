"""What is written down: a row for each network trained, whole chains or nothing."""

from collections.abc import Iterable
from dataclasses import dataclass

from bench import rows


@dataclass(frozen=True)
class Row(rows.Row):
    """One network on one task: how much is gone, how well it does, what it costs.

    removed: share asked for; kept: share of the Winograd layers' weights there is; value: the task's metric on the test
    split, of the compressed network as loaded from its file; trainable (domain: in Winograd layers only) and total
    parameters while it was trained; stored: bytes of the file; multiplies: a sample's in all Winograd layers, as the
    compressed network computes them.
    """

    setting: str
    task: str
    method: str
    seed: int
    removed: float
    kept: float
    metric: str
    value: float
    trainable: int
    domain: int
    parameters: int
    stored: int
    multiplies: int
    seconds: float

    @property
    def chain(self) -> tuple[str, str, str, int]:
        """What it belongs to: setting, task, method, seed."""
        return self.setting, self.task, self.method, self.seed


def select(found: Iterable[Row], task: str, method: str, removed: float) -> list[Row]:
    """The rows of all seeds, in their order."""
    chosen = [r for r in found if (r.task, r.method, r.removed) == (task, method, removed)]
    return sorted(chosen, key=lambda r: r.seed)
