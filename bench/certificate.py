"""What a committed number must say of itself: commit, machine, versions, date."""

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch


def machine() -> str:
    """Commit, processor, threads and torch, in a line."""
    return f"commit {commit()} | {processor()}, {torch.get_num_threads()} threads | torch {torch.__version__}"


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


def commit() -> str:
    """The checkout's commit, "-dirty" behind it where files were changed."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git here
        return "unknown"
    return described.stdout.strip() or "unknown"


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).date().isoformat()
