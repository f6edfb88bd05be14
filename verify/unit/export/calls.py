"""Calls of `lrw export`: networks by name and of a function, with their weights in files."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrw import nets

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "OMP_NUM_THREADS": "1"}
UMASK = 0o027  # of `run`, which nobody has otherwise
NATIVE = "x86_64-linux-gnu"
MODULE = """\
from torch import nn
number = 3
def small():
    import beside
    return nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv3d(3, 2, 1))
def odd():
    return nn.Sequential(nn.LogSigmoid(), nn.Sequential(nn.LayerNorm(6)))
def wrong():
    return 3
def failing():
    raise RuntimeError("not today")
def leaving():
    raise SystemExit(3)
"""
SMALL = ("--in-channels", "2", "--size", "4x5x6")
NAMED = ("--in-channels", "1", "--classes", "2", "--width", "2", "--size", "8x8x8")


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    call = [sys.executable, "-m", "lrw.cli", "export", *arguments]
    return subprocess.run(call, capture_output=True, text=True, env=ENVIRONMENT, cwd=folder, umask=UMASK, check=False)


def named(name: str) -> nn.Module:
    torch.manual_seed(0)
    return nets.build(name, in_channels=1, classes=2, input_size=(8, 8, 8), width=2)


def module(folder: Path, name: str) -> str:
    """A module of MODULE's functions in `folder`, and weights of its `small` and of its `odd` network."""
    (folder / f"{name}.py").write_text(MODULE)
    (folder / "beside.py").write_text("")
    scope: dict[str, Any] = {}
    exec(MODULE.replace("import beside", ""), scope)
    for function in ("small", "odd"):
        torch.save(scope[function]().state_dict(), folder / f"{function}.pt")
    return name
