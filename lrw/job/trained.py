"""Which network a job trained, out of its report: what one needs to load the weights beside it."""

import json
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short
from typing import Any

from lrw import checks, nets
from lrw.job.plain import built
from lrw.nets.own import ACCEPTED

MOST = 2**16
_MOST_BYTES = 2**24
_PLACES = {"net": "config", "width": "config", "channels": "data", "classes": "data", "size": "data"}


@dataclass(frozen=True)
class Trained:
    """A network of `lrw.nets` with the sizes it was built for, or of one's own. Raises ValueError for sizes below 1 and
    above MOST."""

    net: str
    width: int
    channels: int
    classes: int
    size: list[int]

    def __post_init__(self) -> None:
        if self.net not in nets.NAMES and not nets.is_own(self.net):
            raise ValueError(f"net: {short(self.net)}; accepted are {', '.join(nets.NAMES)}, {ACCEPTED}")
        for name in ("width", "channels", "classes"):
            checks.check_count(getattr(self, name), name, MOST)
        if len(self.size) != 3 or not all(1 <= side <= MOST for side in self.size):
            raise ValueError(f"size: {short(self.size)}; accepted are three whole numbers from 1 to {MOST}")


def read(path: Path) -> Trained:
    """The network that the report at `path` is of; what else a report holds is not looked at.

    Raises ValueError naming the file where it is none, OSError where it cannot be read.
    """
    try:
        values = json.loads(_text(path))
        report = built(values, dict[str, Any], "report")
        tables = {table: built(report.get(table), dict[str, Any], table) for table in set(_PLACES.values())}
        trained: Trained = built({name: tables[table].get(name) for name, table in _PLACES.items()}, Trained, "report")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a report this version can read ({error})") from error
    return trained


def _text(path: Path) -> str:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"larger than {_MOST_BYTES} bytes")
    return data.decode()
