"""When training scores, cuts and stops scoring: one recipe for plain loops and for trainers."""

from lrw import checks
from lrw.pruning import ColumnPruner, NotFinite


class PruningSchedule:
    """Drive a column pruner with one call per optimizer step.

        loss.backward()
        schedule.step()       # True where this step cut columns
        optimizer.step()

    score: steps that are scored before the first cut; every: steps between one cut and the next. It has no state beside
    the pruner's: save `pruner.state_dict()` with the network's and the optimizer's, and a loop that was killed goes on
    where the last checkpoint stands. Raises ValueError naming the argument. The defaults are ours.
    """

    def __init__(self, pruner: ColumnPruner, *, score: int = 100, every: int = 50) -> None:
        checks.check_count(score, "score")
        checks.check_count(every, "every")
        self.pruner, self.score, self.every = pruner, score, every

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
        pruner.prune()
        if pruner.done:
            pruner.detach()
        return True
