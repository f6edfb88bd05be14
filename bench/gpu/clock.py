"""Times by CUDA events and peaks of memory; in a dry run calls are made once and nothing is said of them."""

import gc
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from statistics import median, quantiles
from typing import Any, NamedTuple

import torch

Call = Callable[[], object]
LEAST, MOST = 7, 2000  # calls of one figure
MANY = 8  # sets of buffers at most
CACHE = 64 << 20  # bytes, where torch does not say


class Times(NamedTuple):
    """Milliseconds of a call: median, and the quantiles at 20 % and 80 %."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> "Times":
        """Of another number of calls."""
        return Times(*(factor * value for value in self))


def of(values: Sequence[float]) -> Times:
    """The quantiles of two values or more."""
    fifths = quantiles(values, n=5, method="inclusive")
    return Times(median(values), fifths[0], fifths[3])


def rotations(size: int, cache: int) -> int:
    """How many sets of buffers of `size` bytes, taken in turn, leave nothing of a set in a cache of `cache` bytes."""
    return max(2, min(MANY, -(-3 * cache // max(1, size))))


class Clock:
    """Of a GPU, `seconds` for each figure; `dry` on a device that has no events."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.device, self.seconds, self.dry = device, seconds, device.type != "cuda"
        self.cache = 1 if self.dry else int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", CACHE))

    def eager(self, calls: Sequence[Call]) -> Times | None:
        """A call in a stream of them, which take turns: what launching costs is in it where that is the limit."""
        if self.dry:
            calls[0]()
            return None
        for call in calls:
            call()
        torch.cuda.synchronize(self.device)
        once = max(median(self._spans(calls, max(3, len(calls)))), 1e-3)
        self._spans(calls, _bounded(0.3 * 1e3 * self.seconds / once))  # clocks rise, allocators settle
        return of(self._spans(calls, _bounded(1e3 * self.seconds / once)))

    def graph(self, calls: Sequence[Call]) -> Times | None:
        """A call, where all of them are captured in one CUDA graph."""
        if self.dry:
            return self.eager(calls)
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for call in calls:
                call()
        torch.cuda.current_stream(self.device).wait_stream(side)
        torch.cuda.synchronize(self.device)
        graph = self._captured(calls)
        times = self.eager([graph.replay])
        del graph
        return None if times is None else times.scaled(1 / len(calls))

    def kernels(self, calls: Sequence[Call]) -> dict[str, float]:
        """Milliseconds of a call in each kernel by its name, as torch's profiler has it."""
        calls[0]()
        if self.dry:
            return {}
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            for call in calls:
                call()
            torch.cuda.synchronize(self.device)
        spent = {event.key: event.self_device_time_total for event in profile.key_averages()}
        return {name: microseconds / 1e3 / len(calls) for name, microseconds in spent.items() if microseconds}

    def peak(self, make: Callable[[], Call]) -> float | None:
        """MiB at the peak of the call that `make` gives, with what `make` allocates for it, nothing else."""
        gc.collect()
        if self.dry:
            make()()
            return None
        torch.cuda.synchronize(self.device)
        before = torch.cuda.memory_allocated(self.device)
        call = make()
        call()  # libraries take their workspaces, cuDNN tries its algorithms
        torch.cuda.synchronize(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        torch.cuda.synchronize(self.device)
        return (torch.cuda.max_memory_allocated(self.device) - before) / 2**20

    def _captured(self, calls: Sequence[Call]) -> torch.cuda.CUDAGraph:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        stream = torch.cuda.current_stream(self.device)
        try:
            with torch.cuda.graph(graph, pool=pool):
                for call in calls:
                    call()
        except RuntimeError:
            _abandon(stream, pool)
            raise
        return graph

    def _spans(self, calls: Sequence[Call], count: int) -> list[float]:
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for i, event in enumerate(events[1:]):
            calls[i % len(calls)]()
            event.record()
        torch.cuda.synchronize(self.device)
        return [a.elapsed_time(b) for a, b in pairwise(events)]


def _abandon(stream: torch.cuda.Stream, pool: Any) -> None:
    """Put back what a capture that failed has left: its stream as the current one, memory taken from its pool, random
    numbers drawn as in a capture; the last of them ends with the next capture that succeeds."""
    torch.cuda.set_stream(stream)
    with suppress(RuntimeError, AttributeError):  # ended after all, or by other names in other versions of torch
        torch._C._cuda_endAllocateToPool(stream.device_index, pool)
        torch._C._cuda_releasePool(stream.device_index, pool)
    with suppress(RuntimeError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        torch.zeros(1, device=stream.device)


def _bounded(count: float) -> int:
    return int(max(LEAST, min(MOST, count)))


def forget() -> None:
    """Free what the last figure held; a GPU that answers no more has its say elsewhere."""
    gc.collect()
    with suppress(RuntimeError):
        torch.cuda.empty_cache()
