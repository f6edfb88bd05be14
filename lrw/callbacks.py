"""Pruning inside other people's trainers, none of which is a dependency."""

from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

from torch import Tensor, nn

from lrw.pruning import ColumnPruner
from lrw.pruning.calibration import Forward
from lrw.schedule import PruningSchedule
from lrw.typed import typed

LIGHTNING = ("lightning.pytorch", "pytorch_lightning")


@typed
def lightning_callback(
    *,
    score: int = 100,
    every: int = 50,
    calibration: Iterable[Any] | Tensor | None = None,
    forward: Forward | None = None,
    scores: bool | None = None,
    **options: Any,
) -> Any:
    """A Lightning callback that prunes the columns of the module it trains, by `PruningSchedule` and `ColumnPruner`.

    score, every, calibration, forward and scores are the schedule's, `options` the pruner's. Convert the network before
    training starts (in the module's `__init__` or `configure_model`). Scores and counters are part of Lightning's
    checkpoints. Raises ImportError where Lightning is not installed, and as training starts what the pruner raises.
    """

    samples = list(calibration) if calibration is not None and not isinstance(calibration, Tensor) else calibration

    class ColumnPruning(_lightning().Callback):  # type: ignore[misc, name-defined]
        """See `lightning_callback`."""

        def __init__(self) -> None:
            self.schedule: PruningSchedule | None = None
            self._restored: Mapping[str, Any] | None = None

        def on_fit_start(self, trainer: Any, pl_module: nn.Module) -> None:
            pruner = ColumnPruner(pl_module, **options)
            if self._restored is None and self.schedule is not None:  # a second fit goes on
                self._restored = self.schedule.pruner.state_dict()
            if self._restored is not None:
                pruner.load_state_dict(self._restored)
            self.schedule = PruningSchedule(
                pruner, score=score, every=every, calibration=samples, forward=forward, scores=scores
            )
            if pruner.done:
                pruner.detach()

        def on_before_optimizer_step(self, trainer: Any, pl_module: nn.Module, optimizer: Any) -> None:
            assert self.schedule is not None
            scaler = getattr(trainer.precision_plugin, "scaler", None)
            if self.schedule.pruner.ready:  # no gradient came where this optimizer trains other parts
                self.schedule.step(1.0 if scaler is None else scaler.get_scale())

        def on_fit_end(self, trainer: Any, pl_module: nn.Module) -> None:
            assert self.schedule is not None
            self.schedule.pruner.detach()

        def state_dict(self) -> dict[str, Any]:
            return {} if self.schedule is None else {"pruner": self.schedule.pruner.state_dict()}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self._restored = state_dict.get("pruner")
            if self.schedule is not None and self._restored is not None:
                self.schedule.pruner.load_state_dict(self._restored)

    return ColumnPruning()


def _lightning() -> Any:
    for name in LIGHTNING:
        try:
            return import_module(name)
        except ModuleNotFoundError:
            continue
    raise ImportError("lightning_callback: needs Lightning; `pip install lightning` or `pip install pytorch-lightning`")
