"""A job's checkpoint: everything an interrupted run needs to go on, whole or not there."""

import pickletools
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypedDict
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import torch

from lrw import files
from lrw.job.config import JobConfig
from lrw.job.plain import Plain, built, check_keys
from lrw.version import __version__

FORMAT = 2
# What a checkpoint's pickle may name: tensors and what they lie in.
_NAMES = re.compile(r"collections OrderedDict|torch\._utils _rebuild_tensor_v2|torch \w+Storage")
_OTHER_NAMES = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4")


class Scores(TypedDict):
    """How well a network does on one split."""

    accuracy: float
    loss: float
    auc: float | None
    dice: float | None


class Epoch(TypedDict):
    """What is noted of an epoch."""

    stage: str
    epoch: int
    loss: float
    accuracy: float
    auc: float | None
    dice: float | None


@dataclass
class JobState:
    """Where a run stands: `stage` (an index into the pipeline's stages), epochs done in it, and all tensors.

    history has one entry per epoch; accuracy the test metrics at the milestones. `finished` once the report stands.
    """

    config: dict[str, Plain]
    stage: int = 0
    epoch: int = 0
    model: dict[str, torch.Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)
    accuracy: dict[str, Scores] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    parameters: dict[str, list[int]] = field(default_factory=dict)
    finished: bool = False


def path_in(out: Path) -> Path:
    """Where a run in folder `out` keeps its checkpoint."""
    return out / "checkpoint.pt"


def write(state: JobState, out: Path) -> None:
    """Replace the checkpoint in `out`; the one before stays until the new one is complete.

    Raises OSError naming the file where it cannot be written.
    """
    with files.whole(path_in(out)) as partial, partial.open("wb") as file:
        torch.save({"format": FORMAT, "version": __version__, **_shallow(state)}, file)


def read(out: Path) -> JobState | None:
    """The checkpoint in `out`, None where there is none; nothing in the file is run.

    Raises ValueError for one that is damaged, or that holds other things than this version writes, OSError for one that
    cannot be read.
    """
    path = path_in(out)
    if not path.exists():
        return None
    try:
        values = _unpickled(path)
    except Exception as error:  # of the parsers of archives and pickles, whatever a damaged file makes them raise
        if isinstance(error, OSError) and error.filename is not None:
            raise
        raise ValueError(f"out: {path} is damaged or no checkpoint of a job; --fresh starts over") from error
    found = values.pop("format", None) if isinstance(values, dict) else None
    if type(found) is not int or found != FORMAT:
        raise ValueError(f"out: {path} has format {str(found)[:40]}; this version reads format {FORMAT}")
    try:
        check_keys(values, ["version", *JobState.__dataclass_fields__], "checkpoint")
        built(values.pop("version"), str, "version")
        state: JobState = built(values, JobState, "checkpoint")
        check_keys(state.config, JobConfig.__dataclass_fields__, "config")
    except ValueError as error:
        raise ValueError(f"out: {path} is not as this version writes it ({error}); --fresh starts over") from error
    return state


def plain(value: object) -> Any:
    """A dataclass's fields as plain values."""
    return asdict(value)  # type: ignore[call-overload]


def _shallow(state: JobState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in JobState.__dataclass_fields__}


def _unpickled(path: Path) -> Any:
    """What `torch.save` put into the file, once all of it has been checked.

    torch looks at no checksum, and takes room for as much as a record says it holds.
    """
    with ZipFile(path) as archive:
        records = archive.infolist()
        packed = any(record.compress_type != ZIP_STORED for record in records)
        if packed or sum(record.file_size for record in records) > path.stat().st_size:
            raise BadZipFile("more in it than there is")
        if archive.testzip() is not None:
            raise BadZipFile("a checksum is wrong")
        pickled = archive.read(next(record for record in records if record.filename.endswith("/data.pkl")))
    for operation, argument, _ in pickletools.genops(pickled):
        foreign = operation.name == "GLOBAL" and not _NAMES.fullmatch(str(argument))
        if foreign or operation.name in _OTHER_NAMES:
            raise ValueError(f"names {argument}")
    return torch.load(path, map_location="cpu", weights_only=True)
