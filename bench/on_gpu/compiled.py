"""Kernels compiled before anything is timed, by several processes at once; what they compile is on disk for all.

    python -m bench.on_gpu.compiled JOB...

is such a process: it goes through the passes of each job and prints its name when that is done.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.on_gpu.problem import Problem

ROOM = 4  # processors left alone
MOST = 12  # processes, each of which takes half a GiB of the GPU to begin with


@dataclass(frozen=True)
class Compiled:
    """The jobs that were done, and those that were being done, or waited, when time was up."""

    done: frozenset[str]
    late: frozenset[str]


def processes() -> int:
    """As many as suit the machine."""
    return max(1, min(MOST, (os.cpu_count() or 1) - ROOM))


def compile_all(jobs: Sequence[str], count: int, seconds: float, command: Sequence[str] = ()) -> Compiled:
    """Deal the jobs to `count` processes and wait for them, at most `seconds`."""
    program = list(command) or [sys.executable, "-m", "bench.on_gpu.compiled"]
    hands = [hand for hand in (jobs[i::count] for i in range(count)) if hand]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with TemporaryFile("w+") as said:
        running = [
            subprocess.Popen([*program, *hand], stdout=said, stderr=subprocess.DEVNULL, env=environment)
            for hand in hands
        ]
        end = time.monotonic() + seconds
        try:
            stopped = [hand for hand, process in zip(hands, running, strict=True) if not _ended(process, end)]
        finally:
            for process in running:
                if process.poll() is None:
                    process.kill()
                process.wait()
        said.seek(0)
        done = frozenset(said.read().split()) & frozenset(jobs)
    return Compiled(done, frozenset(name for hand in stopped for name in hand) - done)


def _ended(process: "subprocess.Popen[bytes]", end: float) -> bool:
    try:
        process.wait(timeout=max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True


def main(jobs: Sequence[str]) -> int:
    """Go through the jobs; one that fails will fail again, with its reason told, where it is measured."""
    for name in jobs:
        try:
            _compile(name)
        except Exception as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        os.write(1, f"{name}\n".encode())  # at once, and whole: processes share the file
    return 0


def _compile(name: str) -> None:
    import torch

    from bench.on_gpu.layers import LAYERS
    from bench.on_gpu.problem import Problem, settings

    what, precision, layer_name, outputs = name.split(":")
    layer = next(layer for layer in LAYERS if layer.name == layer_name)
    problem = Problem(layer, precision, int(outputs), torch.device("cuda"), 1)  # type: ignore[arg-type]
    with settings(precision):  # type: ignore[arg-type]
        (_trials if what == "sweep" else _passes)(problem)
    torch.cuda.synchronize()


def _passes(problem: "Problem") -> None:
    from lrw_kernels.triton import conv

    for share in (1.0, 0.25):
        planned, u, x = problem.planned(share), problem.weights(share), problem.inputs[0]
        conv.forward(x, u, planned)
        if share == 1 or problem.outputs == 2:
            conv.input_grad(problem.gradients[0], u, planned, problem.layer.size)
            conv.weight_grad(x, problem.gradients[0], planned)


def _trials(problem: "Problem") -> None:
    from bench.on_gpu import sweep

    for trial in sweep.trials(sweep.site(problem, sweep.SHARE)):
        with suppress(*sweep.REFUSED):
            trial.calls[0]()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
