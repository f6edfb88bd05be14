"""What `accelerate` timed on a machine, as a file to carry to others of the same kind.

A plan is JSON: the processor, and by problem (a convolution, `rtol`, threads) the milliseconds of each way that was
tried. It is data of anybody's: a way is taken over where there is such a tile, within the problem's error bound.
"""

import json
import os
import re
from math import isfinite
from pathlib import Path

from lrw.files import whole
from lrw_kernels.untrusted import Entries, read_json, shown
from lrw_kernels.winograd import Tile, spatial_error

FORMAT = 1
_SIZES = r"(\d+)x(\d+)x(\d+)"
_PROBLEM = re.compile(rf"{_SIZES} (\d+)->\d+ on \d+x{_SIZES} padding {_SIZES} rtol ([0-9.e+-]+) threads \d+", re.ASCII)


def save_plan(path: str | os.PathLike[str]) -> Path:
    """Write all that `accelerate` timed on this machine, with this version of lrw, to the file `path`; returns it.

    Raises OSError where it cannot be written.
    """
    from lrw_kernels.choice import measured  # LLVM comes along

    said = {"format": FORMAT, "processor": measured.processor(), "problems": measured.known()}
    with whole(path) as file:
        file.write_text(json.dumps(said, indent=1, sort_keys=True))
    return Path(path)


def load_plan(path: str | os.PathLike[str]) -> int:
    """Take over what was timed elsewhere, for this and later processes; returns how many problems are new.

    What was timed here stays as it is. Raises ValueError for what `save_plan` did not write and for the plan of another
    kind of processor, with nothing taken over, and OSError where the file cannot be read.
    """
    from lrw_kernels.choice import measured

    found = Entries(read_json(Path(path), f"{path}"), f"{path}: ")
    found.only(("format", "processor", "problems"))
    found.whole("format", FORMAT, FORMAT)
    if found.text("processor") != measured.processor():
        raise ValueError(f"{path}: of {shown(found.text('processor'))}; accepted is {shown(measured.processor())}")
    problems = found.entries("problems").values
    return measured.learn({key: _row(f"{path}: {shown(key)}", key, row) for key, row in problems.items()})


def _row(prefix: str, key: str, row: object) -> dict[str, float]:
    """Milliseconds by way, as they were timed for problem `key`."""
    problem, ways = _PROBLEM.fullmatch(key), Entries(row, f"{prefix}: ").values
    if problem is None or not ways:
        raise ValueError(f"{prefix}: is no problem with its times")
    taps, cin, rtol = [int(n) for n in problem.groups()[:3]], int(problem.group(4)), float(problem.groups()[-1])
    for way, ms in ways.items():
        outputs = re.fullmatch(_SIZES, way, re.ASCII)
        if way != "direct" and not (outputs and _within([int(m) for m in outputs.groups()], taps, cin, rtol)):
            raise ValueError(f"{prefix}: {shown(way)}; accepted are 'direct' and tiles within {rtol:g}")
        if type(ms) is not float or not isfinite(ms) or ms <= 0:
            raise ValueError(f"{prefix}: {way}: {shown(ms)}; accepted are milliseconds")
    return {str(way): float(ms) for way, ms in ways.items()}


def _within(outputs: list[int], taps: list[int], cin: int, rtol: float) -> bool:
    try:
        return spatial_error(Tile.of(outputs, taps), cin, 2.0**-23) <= rtol
    except ValueError:
        return False
