"""Whether a checkpoint is one that this very job wrote: all of it is checked before any of it is taken over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from reprlib import repr as short
from typing import Any

import torch
from torch import Tensor, nn

from lrw.job.plain import check_keys
from lrw.job.state import JobState
from lrw.pruning import ColumnPruner


@dataclass(frozen=True)
class Stage:
    """One stretch of training: its name, its epochs, and what the network is called after it."""

    name: str
    epochs: int
    milestone: str


def check_progress(state: JobState, stages: Sequence[Stage], cuts: int | None) -> None:
    """`state` must stand somewhere on the way through `stages`, with all that was noted on that way.

    cuts: of the last stage, one per epoch from its first; None where no pruner cuts. Raises ValueError.
    """
    if not 0 <= state.stage < len(stages) or not 0 <= state.epoch <= stages[state.stage].epochs:
        raise ValueError(f"stage {state.stage}, epoch {state.epoch}: this job has none such")
    lengths = [stage.epochs for stage in stages[: state.stage]] + [state.epoch]
    done = [(stage.name, epoch + 1) for stage, length in zip(stages, lengths, strict=False) for epoch in range(length)]
    if [(entry["stage"], entry["epoch"]) for entry in state.history] != done:
        raise ValueError(f"history: has other epochs than the {len(done)} that were done")
    passed = [stage.milestone for stage in stages[: state.stage]]
    missing = [name for name in passed if name not in state.accuracy or len(state.parameters.get(name, [])) != 2]
    if missing:
        raise ValueError(f"accuracy, parameters: nothing of {missing[0]!r}")
    if any(len(counts) != 2 for counts in state.parameters.values()):
        raise ValueError("parameters: accepted are two numbers for each network")
    if cuts is None:
        return
    cut = min(cuts, state.epoch) if state.stage == len(stages) - 1 else 0
    if state.stage and state.pruner.get("stage") != cut:
        raise ValueError(f"pruner.stage: {short(state.pruner.get('stage'))}; accepted is {cut} after these epochs")


def load_network(net: nn.Module, found: Mapping[str, Tensor]) -> None:
    """Load `found` into `net`. Raises ValueError where it has other tensors."""
    check_like(dict(found), dict(net.state_dict()), "model")
    net.load_state_dict(found)


def load_pruner(pruner: ColumnPruner, found: dict[str, Any]) -> None:
    """Go on from `found`. Raises ValueError where it is no state of this pruner."""
    check_like(found, pruner.state_dict(), "pruner")
    pruner.load_state_dict(found)


def load_optimizer(optimizer: torch.optim.Optimizer, found: dict[str, Any]) -> None:
    """Go on from `found`. Raises ValueError where it is no state of this optimizer (AdamW)."""
    own = optimizer.state_dict()
    check_keys(found, own, "optimizer")
    check_like(found["param_groups"], own["param_groups"], "optimizer.param_groups")
    for group, mine in zip(found["param_groups"], own["param_groups"], strict=True):
        different = [key for key in mine if key != "lr" and group[key] != mine[key]]
        if different or not 0 <= group["lr"] < 1:
            raise ValueError(f"optimizer.param_groups.{(different or ['lr'])[0]}: is another than this job's")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not isinstance(found["state"], dict) or any(type(index) is not int for index in found["state"]):
        raise ValueError("optimizer.state: accepted are moments by the number of their parameter")
    for index, moments in found["state"].items():
        if not 0 <= index < len(parameters):
            raise ValueError(f"optimizer.state[{index}]: there are {len(parameters)} parameters")
        like = {"step": torch.tensor(0.0), "exp_avg": parameters[index], "exp_avg_sq": parameters[index]}
        check_like(moments, like, f"optimizer.state[{index}]")
    optimizer.load_state_dict(found)


def _same_form(found: Any, own: Tensor) -> bool:
    """Whether it is a tensor of the same shape and dtype, with memory for each of its elements."""
    if not isinstance(found, Tensor) or found.layout != torch.strided:
        return False
    there = found.untyped_storage().nbytes() >= own.numel() * own.itemsize
    return there and (found.shape, found.dtype) == (own.shape, own.dtype)


def check_like(found: Any, own: Any, place: str) -> None:
    """`found` must be built as `own` is: the same keys, lengths and types, tensors of the same shape and dtype.

    Raises ValueError naming the `place` of the first difference.
    """
    if isinstance(own, Tensor):
        if not _same_form(found, own):
            there = f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else short(found)
            raise ValueError(f"{place}: {there}; accepted is {own.dtype} {list(own.shape)}")
    elif type(found) is not type(own):
        raise ValueError(f"{place}: {short(found)}; accepted is a {type(own).__name__}")
    elif isinstance(own, dict):
        check_keys(found, own, place)
        for key in own:
            check_like(found[key], own[key], f"{place}.{key}")
    elif isinstance(own, list | tuple):
        if len(found) != len(own):
            raise ValueError(f"{place}: {len(found)} values; accepted are {len(own)}")
        for index, value in enumerate(own):
            check_like(found[index], value, f"{place}[{index}]")
