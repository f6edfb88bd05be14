"""What a committed number must say of itself: commit, machine, versions, date."""

import platform
import subprocess
from datetime import UTC, datetime

import torch


def machine() -> str:
    """Commit, processor, threads and torch, in a line."""
    return f"commit {commit()} | {platform.machine()}, {torch.get_num_threads()} threads | torch {torch.__version__}"


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
