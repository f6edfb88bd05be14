"""What a committed number must say of itself: commit, machine, versions, date."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import numba
import torch

from lrw.version import __version__


def stamp(machine: str = "", versions: str = "") -> dict[str, str]:
    """The columns that every row has; a bench may have a machine of its own, and versions beside those of Python."""
    ours = machine or f"{processor()}, {torch.get_num_threads()} threads"
    theirs = ", ".join(filter(None, (versions, python_versions())))
    return {"commit": commit(), "machine": ours, "versions": theirs, "date": datetime.now(UTC).date().isoformat()}


def line(values: dict[str, str]) -> str:
    """A stamp as text."""
    return " | ".join(filter(None, values.values()))


def processor() -> str:
    """The instruction set, and what the system calls the processor where it says so: names of virtual ones say little,
    family and model are by which they differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        return platform.machine()
    said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    numbers = [f"{key} {said[of]}" for key, of in (("family", "cpu family"), ("model", "model")) if of in said]
    return ", ".join([platform.machine(), *([said["model name"]] if "model name" in said else []), *numbers])


def python_versions() -> str:
    """Python, torch, numba, lrw."""
    versions = {"python": platform.python_version(), "torch": torch.__version__, "numba": numba.__version__}
    return ", ".join(f"{name} {version}" for name, version in {**versions, "lrw": __version__}.items())


def commit() -> str:
    """The checkout's commit, "-dirty" behind it where files were changed."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return described.stdout.strip() or "unknown"
