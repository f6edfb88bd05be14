"""What a new process waits for: the import, and its first accelerated pass, where no kernels are kept and where they
are."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from bench import page, rows
from bench.first_call import NETWORK
from bench.gate import Red

AGAIN = 2  # processes that find kernels kept
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Row(rows.Row):
    """What is waited for, the median of its seconds over so many new `processes`, those of `import torch` in the same
    ones, and how far a pass is from torch's at most, over the largest output."""

    case: str
    seconds: float
    torch_s: float
    processes: int
    error: float


def measure() -> list[Row]:
    """A row each for the import of lrw over that of torch, and for the first pass of a network, accelerated, with a
    cache folder that is empty and with one that is not. Raises Red where a process fails or computes wrong numbers."""
    with TemporaryDirectory() as cache:
        first, *others = [started(cache) for _ in range(1 + AGAIN)]
    return [
        _row("import lrw, over torch", "lrw_s", [first, *others]),
        _row(f"first pass of {NETWORK}, nothing kept", "call_s", [first]),
        _row(f"first pass of {NETWORK}, kernels kept", "call_s", others),
    ]


def started(cache: str) -> dict[str, float]:
    """What a new process says that keeps its kernels in `cache`; all but the error in seconds. Raises Red."""
    paths = [str(ROOT), str(ROOT / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"LRW_CACHE_DIR": cache, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "bench.first_call"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise Red(f"a new process: {said[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def table(found: Sequence[Row]) -> list[str]:
    """Seconds of each wait."""
    lines = [(row.case, f"{row.seconds:.2f}", f"{row.torch_s:.2f}", f"{row.processes}", f"{row.error:.0e}")
             for row in found]  # fmt: skip
    return page.table(("a new process", "s", "import torch, s", "processes", "error"), lines)


def _row(case: str, of: str, found: Sequence[dict[str, float]]) -> Row:
    seconds, torch_s = (median(each[name] for each in found) for name in (of, "torch_s"))
    return Row(case, seconds, torch_s, len(found), max(each["error"] for each in found))
