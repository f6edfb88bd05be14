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
from lrw.typed import typed
from lrw.version import __version__
from lrw_kernels.choice.convolution import EPS
from lrw_kernels.untrusted import Entries, read_json, shown
from lrw_kernels.winograd import Tile, spatial_error

FORMAT = 1
_NUMBER, _SIZES = r"([1-9]\d{0,8})", "x".join([r"(\d{1,9})"] * 3)
_PROBLEM = re.compile(
    rf"{_SIZES} {_NUMBER}->{_NUMBER} on {_NUMBER}x{_SIZES} padding {_SIZES} "
    rf"rtol (\d(?:\.\d{{1,17}})?(?:e-\d\d)?) threads {_NUMBER}",
    re.ASCII,
)


@typed
def save_plan(path: str | os.PathLike[str]) -> Path:
    """Write all that `accelerate` timed on this machine, with this version of lrw, to the file `path`; returns it.

    Raises OSError where it cannot be written.
    """
    from lrw_kernels.choice import measured  # LLVM comes along

    said = {"format": FORMAT, "version": __version__, "processor": measured.processor(), "problems": measured.known()}
    with whole(path) as file:
        file.write_text(json.dumps(said, indent=1, sort_keys=True))
    return Path(path)


@typed
def load_plan(path: str | os.PathLike[str]) -> int:
    """Take over what was timed elsewhere, for this and later processes; returns how many problems are new.

    What was timed here stays as it is. Raises ValueError for what `save_plan` did not write and for the plan of another
    kind of processor or version of lrw, with nothing taken over, and OSError where the file cannot be read.
    """
    from lrw_kernels.choice import measured

    found = Entries(read_json(Path(path), f"{path}"), f"{path}: ")
    found.only(("format", "version", "processor", "problems"))
    found.whole("format", FORMAT, FORMAT)
    for what, accepted in (("version", __version__), ("processor", measured.processor())):
        if found.text(what) != accepted:
            raise found.refused(what, f"is {shown(accepted)}")
    problems = found.entries("problems").values
    return measured.learn({key: _row(f"{path}: {shown(key)}", key, row) for key, row in problems.items()})


def _row(prefix: str, key: str, row: object) -> dict[str, float]:
    """Milliseconds by way, as they were timed for problem `key`."""
    problem, ways = _PROBLEM.fullmatch(key), Entries(row, f"{prefix}: ").values
    if problem is None or not ways:
        raise ValueError(f"{prefix}: is no problem with its times")
    taps, cin, rtol = [int(n) for n in problem.groups()[:3]], int(problem.group(4)), float(problem.groups()[-2])
    for way, ms in ways.items():
        outputs = re.fullmatch(_SIZES, way, re.ASCII)
        if way != "direct" and not (outputs and _within([int(m) for m in outputs.groups()], taps, cin, rtol)):
            raise ValueError(f"{prefix}: {shown(way)}; accepted are 'direct' and tiles within {rtol:g}")
        if type(ms) is not float or not isfinite(ms) or ms <= 0:
            raise ValueError(f"{prefix}: {way}: {shown(ms)}; accepted are milliseconds")
    return {str(way): float(ms) for way, ms in ways.items()}


def _within(outputs: list[int], taps: list[int], cin: int, rtol: float) -> bool:
    try:
        return spatial_error(Tile.of(outputs, taps), cin, EPS) <= rtol
    except ValueError:
        return False
