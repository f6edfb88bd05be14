"""Kernels compiled before anything is timed, by several processes at once; what they compile is on disk for all."""

import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context

import torch

from bench.gpu.plan import Job
from bench.gpu.problem import settings
from lrw_kernels.triton import conv

ROOM = 4  # processors left alone
MOST = 12  # processes, each of which takes half a GiB of the GPU to begin with


def processes() -> int:
    """As many as suit the machine."""
    return max(1, min(MOST, (os.cpu_count() or 1) - ROOM))


def late(jobs: Sequence[Job], count: int, seconds: float, work: Callable[[Job], None] | None = None) -> set[Job]:
    """Deal the jobs to `count` processes and wait for them, at most `seconds`: those that were not done by then.

    One that fails is done: it will fail again, with its reason told, where it is measured.
    """
    end = time.monotonic() + seconds
    with get_context("spawn").Pool(count, _silent) as pool:  # ends its processes when it is left
        results = {job: pool.apply_async(work or compile_passes, (job,)) for job in jobs}
        for result in results.values():
            result.wait(max(0.0, end - time.monotonic()))
        return {job for job, result in results.items() if not result.ready()}


def compile_passes(job: Job) -> None:
    """Go through the passes of a job."""
    problem = job.problem(torch.device("cuda"), 1)
    with settings(job.precision):
        for share in (1.0, 0.25):
            planned, u, x = problem.planned(share), problem.weights(share), problem.inputs[0]
            conv.forward(x, u, planned)
            if share == 1 or job.outputs == 2:
                conv.input_grad(problem.gradients[0], u, planned, job.layer.size)
                conv.weight_grad(x, problem.gradients[0], planned)
    torch.cuda.synchronize()


def _silent() -> None:
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
