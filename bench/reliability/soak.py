"""Accelerated networks in many threads at once, shapes mixed, for as long as one likes: each result is looked at."""

import random
import resource
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from threading import Lock
from time import monotonic

import torch
from torch import Tensor, nn

import lrw
from bench.reliability.rows import Row
from lrw.nets import C3D, R3D18, UNet3D

LIMIT = 1e-4  # of the largest number that comes out
WARM = 0.2  # share of the time after which all shapes have come by
EVERY = 5.0  # seconds between looks at memory

Size = tuple[int, int, int]


def networks() -> list[tuple[nn.Module, list[Size]]]:
    """Networks, and the sizes they are called with: of one of them more than programs are kept, so that some are made
    anew again and again."""
    torch.manual_seed(0)
    cubes = [(8 * d, 8 * h, 16) for d in (1, 2) for h in (1, 2, 3)]
    odd = [(d, h, 11) for d in (5, 6, 9) for h in (7, 10, 13)]
    unet, small = UNet3D(1, 3, width=8, levels=3), R3D18(1, 4, (8, 16, 16), width=8)
    pruned = lrw.compress(lrw.prune(UNet3D(1, 2, width=8, levels=2).eval(), [torch.randn(4, 1, 8, 8, 8)], sparsity=0.5,
                                    progress=False))  # fmt: skip
    return [(unet, cubes), (small, odd), (pruned, cubes), (C3D(1, 5, (8, 16, 16), width=8), [(8, 16, 16)])]


@dataclass
class _Seen:
    """What the threads found."""

    calls: int = 0
    wrong: int = 0
    lock: Lock = field(default_factory=Lock)


def soak(minutes: float, threads: int, say: Callable[[str], None]) -> Row:
    """Call networks from `threads` threads for so many minutes."""
    calls = _calls()
    seen, begin, memory = _Seen(), monotonic(), list[tuple[float, float]]()
    end = begin + 60 * minutes
    with ThreadPoolExecutor(threads) as pool:
        workers = [pool.submit(_work, calls, number, end, seen) for number in range(threads)]
        while wait(workers, EVERY).not_done:
            memory.append((monotonic() - begin, _resident()))
            spent = memory[-1][0] / 60
            say(f"{spent:6.1f} min  {seen.calls:9,} calls  {seen.wrong} wrong  {memory[-1][1]:.0f} MB")
        for worker in workers:
            worker.result()
    memory.append((monotonic() - begin, _resident()))
    warm = [mb for at, mb in memory if WARM <= at / 60 / minutes < 2 * WARM] or [memory[0][1]]
    last = [mb for at, mb in memory if at / 60 / minutes >= 1 - WARM]
    what = f"accelerated networks, mixed shapes, {threads} threads"
    return Row(what, minutes, seen.calls, seen.wrong, median(warm), median(last))


Call = tuple[Callable[[Tensor], Tensor], Tensor, Tensor]


def _calls() -> list[Call]:
    """(an accelerated network, an input, what torch makes of it), of each network and size."""
    made = []
    for net, sizes in networks():
        net.eval()
        generator = torch.Generator().manual_seed(1)
        inputs = [torch.randn(1 + i % 2, 1, *size, generator=generator) for i, size in enumerate(sizes)]
        with torch.no_grad():
            fast = lrw.accelerate(net, inputs[0], measure=False, threads=1)
            made += [(fast, x, net(x)) for x in inputs]
            for x in inputs:
                fast(x)  # kernels are compiled before the clock runs
    return made


def _work(calls: list[Call], number: int, end: float, seen: _Seen) -> None:
    drawn = random.Random(number)
    with torch.inference_mode():
        while monotonic() < end:
            fast, x, expected = drawn.choice(calls)
            try:
                right = float((fast(x) - expected).abs().max()) <= LIMIT * float(expected.abs().max())
            except Exception:  # of any class: it is wrong to raise
                traceback.print_exc()
                right = False
            with seen.lock:
                seen.calls += 1
                seen.wrong += not right


def _resident() -> float:
    """Memory of this process, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6
