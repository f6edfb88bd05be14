"""A job's checkpoint: everything an interrupted run needs to go on, whole or not there."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from lrw.checkpoint import UNREADABLE
from lrw.version import __version__

FORMAT = 1


@dataclass
class JobState:
    """Where a run stands: `stage` (an index into the pipeline's stages), epochs done in it, and all tensors.

    history has one entry per epoch; accuracy the test metrics at the milestones. `finished` once the report stands.
    """

    config: dict[str, Any]
    stage: int = 0
    epoch: int = 0
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    accuracy: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, list[int]] = field(default_factory=dict)
    finished: bool = False


def path_in(out: Path) -> Path:
    """Where a run in folder `out` keeps its checkpoint."""
    return out / "checkpoint.pt"


def write(state: JobState, out: Path) -> None:
    """Replace the checkpoint in `out`; the one before stays until the new one is complete."""
    partial = path_in(out).with_suffix(".partial")
    torch.save({"format": FORMAT, "version": __version__, **_shallow(state)}, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path_in(out))


def read(out: Path) -> JobState | None:
    """The checkpoint in `out`, None where there is none. Raises ValueError for one this version cannot read."""
    path = path_in(out)
    if not path.exists():
        return None
    try:
        values = torch.load(path, weights_only=True)  # tensors and plain values only: nothing in the file is run
        found = values.pop("format", None)
    except UNREADABLE as error:
        raise ValueError(f"out: {path} is damaged or no checkpoint of a job; --fresh starts over") from error
    if found != FORMAT:
        raise ValueError(f"out: {path} has format {found}; this version reads format {FORMAT}")
    values.pop("version")
    return JobState(**values)


def plain(value: object) -> dict[str, Any]:
    """A dataclass's fields as plain values."""
    return asdict(value)  # type: ignore[call-overload, no-any-return]


def _shallow(state: JobState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in JobState.__dataclass_fields__}
