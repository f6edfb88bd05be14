"""A job that takes a second or two: in this process, on tiny data, with nothing timed and nothing exported."""

import sys
from pathlib import Path

import numpy as np
import pytest

from lrw.cli import main

FLAGS = "--width 2 --epochs 2 --batch-size 32 --rank 2 --export none --quiet".split()
# For a process of its own: `python -c PROGRAM FOLDER ...`; {} is what is changed before it starts.
PROGRAM = """
import sys, time
import lrw.job.finish, lrw.job.pipeline
from lrw.cli import main
lrw.job.finish.interleaved = lambda calls, seconds: dict.fromkeys(calls, 1e-3)
{}
sys.exit(main(sys.argv[1:]))
"""


def volumes(path: Path) -> Path:
    """A MedMNIST-shaped file whose two classes differ in brightness: learnt in a few steps."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 64), ("val", 16), ("test", 24)):
        labels = np.arange(count) % 2
        images = rng.integers(0, 120, (count, 8, 8, 8)) + 100 * labels[:, None, None, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels[:, None].astype(np.uint8)}
    np.savez(path, **arrays)
    return path


def arguments(folder: Path, *flags: str) -> list[str]:
    """Of `lrw compress`, with data beside `folder`, which is made where there is none."""
    data = folder.parent / "data.npz"
    if not data.exists():
        volumes(data)
    return ["compress", "--data", str(data), "--out", str(folder), *FLAGS, *flags]


def job(folder: Path, *flags: str) -> int:
    """The exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lrw.job.finish.interleaved", lambda calls, seconds: dict.fromkeys(calls, 1e-3))
        return main(arguments(folder, *flags))


def program(changes: str, folder: Path, *flags: str) -> list[str]:
    """The command of a process that does the job with `changes` to lrw."""
    return [sys.executable, "-c", PROGRAM.format(changes), *arguments(folder, *flags)]
