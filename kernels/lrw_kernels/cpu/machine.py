"""What the kernels know about a machine: frozen configurations, chosen by the features of the host."""

import platform
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Machine:
    """Vector width, micro-kernel and caches of a machine class; rates are measured on one core of an example of it.

    The micro-kernel forms `rows` x `vectors` * lanes products at a time: rows * vectors accumulators, `vectors` of B
    and one of A must fit the register file. Caches are bytes per core.
    """

    name: str
    vector_bytes: int
    rows: int
    vectors: int
    l1: int
    l2: int
    l3: int
    flops: float  # multiplies and adds per second
    l3_rate: float  # bytes per second
    memory_rate: float
    spare_adders: bool = False  # see line.Algebra

    def __hash__(self) -> int:
        return hash((self.name, self.rows))  # on every call's way to its plan

    def lanes(self, element: str) -> int:
        """Numbers per vector; `element` is "float32" or "float64"."""
        return self.vector_bytes // (8 if element == "float64" else 4)


AVX512 = Machine("avx512", 64, 14, 2, 32 * KIB, 1 * MIB, 32 * MIB, 125e9, 60e9, 30e9)
AVX2 = Machine("avx2", 32, 6, 2, 32 * KIB, 512 * KIB, 8 * MIB, 100e9, 50e9, 20e9)
NEON = Machine("neon", 16, 8, 3, 32 * KIB, 256 * KIB, 2 * MIB, 30e9, 20e9, 8e9)
MACHINES = {machine.name: machine for machine in (AVX512, AVX2, NEON)}


@lru_cache(maxsize=1)
def host() -> Machine:
    """The configuration of the machine we run on. Raises RuntimeError where there is none (see `supported`)."""
    from llvmlite import binding

    features: Any = binding.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return replace(AVX512, spare_adders=binding.get_host_cpu_name().startswith("znver"))
    if features.get("avx2") and features.get("fma"):
        return replace(AVX2, spare_adders=binding.get_host_cpu_name().startswith("znver"))
    if platform.machine().lower() in ("aarch64", "arm64"):
        return NEON
    raise RuntimeError("no kernels for this processor: it has neither AVX2 with FMA nor NEON")


def supported() -> bool:
    """Whether there are kernels for this processor."""
    try:
        host()
    except RuntimeError:
        return False
    return True
