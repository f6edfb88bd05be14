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
from lrw_kernels.cpu import layout, library
from lrw_kernels.cpu.digest import digest, place
from lrw_kernels.cpu.micro import PEAK_STEPS
from lrw_kernels.cpu.step import Job, Steps
from lrw_kernels.cpu.winograd import problem as problems
from lrw_kernels.cpu.winograd.records import Products
from lrw_kernels.program import layer as program

PEAK_ITEMS = 64


def problem(case: Layer, geometry: Geometry) -> problems.Problem:
    """What calls of the layer ask for."""
    of = str(geometry.tile), geometry.padding, geometry.kept, geometry.fixed, 1, case.size, (case.cin, case.cout)
    return problems.of(*of, "float32", host(), torch.get_num_threads())


def stages(case: Layer, geometry: Geometry, x: Tensor, u: Tensor) -> dict[str, Callable[[], object]]:
    """The whole pass and the transforms alone, on ready buffers, and the digest of U by which panels are judged; x is
    channels_last_3d [1, C, D, H, W]."""
    y = torch.empty(1, case.cout, *case.size).to(memory_format=torch.channels_last_3d)
    p = problem(case, geometry)
    panels, size = Memory.of(p.weight_bytes), u.numel() * u.element_size()
    layout.pack(u.data_ptr(), panels.address, tuple(u.shape), p.machine, "float32", transposed=False, workers=1)
    made = program.steps(p, program.dense(p, problems.FORWARD))
    whole, transforms = (program.Runner(of, p.threads) for of in (made, _without_products(made)))

    def run(runner: program.Runner) -> Callable[[], None]:
        return lambda: runner.run(x.data_ptr(), y.data_ptr(), 0, 0, panels.address)

    digested = lambda: digest(place(u.data_ptr(), size), torch.get_num_threads())  # noqa: E731
    return {"whole": run(whole), "transforms": run(transforms), "digest": digested}


def _without_products(made: Steps) -> Steps:
    """Only the transforms: of a pass by positions those steps, in one by tiles no positions to multiply at."""
    left = [step for step in made.steps if not isinstance(step.job.record, Products)]
    return replace(made, steps=tuple(step._replace(job=_multiplying_nothing(step.job)) for step in left))


def _multiplying_nothing(job: Job) -> Job:
    products: Any = job.refers.get("products")
    return job.but(products=[each.but(positions=0) for each in products]) if products else job


def peak() -> Callable[[], None]:
    """Fused multiply-adds in registers, on every thread."""
    machine, workers = host(), torch.get_num_threads()
    kernel, scratch = library.peak(machine, "float32"), Memory.of(workers << 14)
    return lambda: threads.run(kernel.address, 0, PEAK_ITEMS, scratch.address, 1 << 14, workers)


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
    p = problem(case, geometry)
    done = program.runner(p, program.dense(p, problems.FORWARD))
    return {
        "path": done.path,
        "kernels_ms": whole,
        "digest_ms": digesting,
        "transforms_ms": transforms,
        "gemm_gflops": rate / 1e6,
        "peak_gflops": most / 1e6,
        "of_peak": rate / most,
        "scratch_mib": done.program.buffer_bytes / 2**20,
    }
