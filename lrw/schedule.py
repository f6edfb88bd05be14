"""When training scores, cuts and stops scoring: one recipe for plain loops and for trainers."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from lrw import checks
from lrw.pruning import ColumnPruner, NotFinite
from lrw.pruning.calibration import Forward
from lrw.typed import typed


class PruningSchedule:
    """Drive a column pruner with one call per optimizer step.

        loss.backward()
        schedule.step()       # True where this step cut columns
        optimizer.step()

    score: steps that are scored before the first cut; every: steps between one cut and the next; calibration: samples
    that what stays is fitted on at each cut, with forward and scores as in `ColumnPruner.prune`; without them a cut is
    all that happens. It has no state beside the pruner's: save `pruner.state_dict()` with the network's and the
    optimizer's, and a loop that was killed goes on where the last checkpoint stands. Raises ValueError naming the
    argument. The defaults are ours.
    """

    @typed
    def __init__(
        self,
        pruner: ColumnPruner,
        *,
        score: int = 100,
        every: int = 50,
        calibration: Iterable[Any] | Tensor | None = None,
        forward: Forward | None = None,
        scores: bool | None = None,
    ) -> None:
        checks.check_count(score, "score")
        checks.check_count(every, "every")
        checks.check_looked_at(calibration, forward=forward, scores=scores)
        self.pruner, self.score, self.every = pruner, score, every
        plain = calibration is None or isinstance(calibration, Tensor)
        self.calibration = calibration if plain else list(calibration)  # type: ignore[arg-type]  # for every cut
        self.forward, self.scores = forward, scores

    def step(self, scale: float = 1.0) -> bool:
        """Score what the last backward pass said; cut where a cut is due.

        scale: what the loss was multiplied with (`GradScaler.get_scale()`); a pass that overflowed is passed over, as
        the scaler does. Raises as `ColumnPruner.observe` does.
        """
        pruner = self.pruner
        if pruner.done:
            return False
        try:
            pruner.observe(scale)
        except NotFinite:
            return False
        if pruner.observations < self.score + self.every * pruner.stage:
            return False
        pruner.prune(calibration=self.calibration, forward=self.forward, scores=self.scores)
        if pruner.done:
            pruner.detach()
        return True
