"""Where a layer's time goes on the CPU: products against transforms, and products against what the machine can do."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from bench.layers import Layer
from lrw.geometry import Geometry
from lrw_kernels.codegen import threads
from lrw_kernels.codegen.arena import Memory
from lrw_kernels.codegen.machine import host
from lrw_kernels.cpu import conv, layout, library
from lrw_kernels.cpu import problem as problems
from lrw_kernels.cpu.digest import digest
from lrw_kernels.cpu.micro import PEAK_STEPS
from lrw_kernels.cpu.problem import Activations

PEAK_ITEMS = 64


def problem(case: Layer, geometry: Geometry) -> problems.Problem:
    """A problem of its own, not the one calls share: `stages` changes one."""
    channels, workers = (case.cin, case.cout), torch.get_num_threads()
    of = str(geometry.tile), geometry.padding, geometry.kept, geometry.fixed, 1, case.size, channels
    return replace(problems.of(*of, "float32", host(), workers))


def stages(case: Layer, geometry: Geometry, x: Tensor, u: Tensor) -> dict[str, Callable[[], object]]:
    """The whole pass and the transforms alone, on ready buffers, and the digest of U by which panels are judged; x is
    channels_last_3d [1, C, D, H, W]."""
    y = torch.empty(1, case.cout, *case.size).to(memory_format=torch.channels_last_3d)
    source, target = (_activations(t) for t in (x, y))
    runs: dict[str, Callable[[], object]] = {}
    for name in ("whole", "transforms"):
        p = problem(case, geometry)
        if name == "transforms":
            conv.prepared(p, conv.FORWARD).products[0].positions = 0
        panels = Memory.of(p.weight_bytes)
        layout.pack(u.data_ptr(), panels.address, tuple(u.shape), p.machine, "float32", transposed=False, workers=1)
        runs[name] = _run(p, source, panels, target, (x, y))
    size, workers = u.numel() * u.element_size(), torch.get_num_threads()
    return {**runs, "digest": lambda: digest(u.data_ptr(), size, workers)}


def peak() -> Callable[[], None]:
    """Fused multiply-adds in registers, on every thread."""
    machine, workers = host(), torch.get_num_threads()
    kernel, scratch = library.peak(machine, "float32"), Memory.of(workers << 14)
    return lambda: threads.run(kernel.address, 0, PEAK_ITEMS, 1, scratch.address, 1 << 14, workers)


def _peak_flops() -> int:
    """Multiply-adds of one `peak()`, times two."""
    machine = host()
    return 2 * PEAK_ITEMS * PEAK_STEPS * machine.rows * machine.vectors * machine.lanes("float32")


def figures(case: Layer, geometry: Geometry, times: Mapping[str, float], share: float) -> dict[str, Any]:
    """What a row says of its stages, out of milliseconds: products take the whole pass less its transforms; their rate
    is held against the peak of the same minutes."""
    whole, transforms, digesting = (times[f"{part} {share}"] for part in ("whole", "transforms", "digest"))
    flops = 2 * geometry.columns * prod(geometry.tile.grid(case.size)) * case.cin * case.cout
    rate, most = flops / (whole - transforms), _peak_flops() / times["peak"]
    done = conv.prepared(problem(case, geometry), conv.FORWARD)
    return {
        "path": done.plan.path,
        "kernels_ms": whole,
        "digest_ms": digesting,
        "transforms_ms": transforms,
        "gemm_gflops": rate / 1e6,
        "peak_gflops": most / 1e6,
        "of_peak": rate / most,
        "scratch_mib": done.scratch / 2**20,
    }


def _run(
    p: problems.Problem, source: Activations, panels: Memory, target: Activations, alive: tuple[Tensor, Tensor]
) -> Callable[[], None]:
    def run() -> None:
        conv.forward(p, source, panels.address, target)
        assert alive

    return run


def _activations(t: Tensor) -> Activations:
    n, _, d, h, w = (step * t.element_size() for step in t.stride())
    return Activations(t.data_ptr(), (n, d, h, w))
