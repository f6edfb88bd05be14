"""What the kernels know about a machine: frozen configurations, chosen by the features of the host."""

import platform
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

KIB, MIB = 1 << 10, 1 << 20
LINE = 64  # bytes of a cache line
BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ADDRESS, FLOAT = 8, BYTES["float32"]  # bytes


def whole_lines(size: int) -> int:
    """`size` in bytes, rounded up to whole cache lines."""
    return -(-size // LINE) * LINE


@dataclass(frozen=True)
class Machine:
    """Vector width, micro-kernel and caches of a machine class.

    The micro-kernel forms `rows` x `vectors` * lanes products at a time: rows * vectors accumulators, `vectors` of B
    and one of A (`rows` of them if `by_element`) must fit the register file. Caches are bytes: `l2` of a core, `l3` of
    all.
    """

    name: str
    vector_bytes: int
    rows: int
    vectors: int
    l2: int
    l3: int
    spare_adders: bool = False  # see line.Algebra
    prefetch: bool = True  # weights ahead of their use; hardware alone is better at it where this is False
    native_maximum: bool = False  # see vector.Vectors
    by_element: bool = False  # an fma can take one number of a vector for all: a row of A is loaded whole

    def __hash__(self) -> int:
        return hash((self.name, self.rows))  # on every call's way to its plan

    def lanes(self, element: str) -> int:
        """Numbers of a dtype per vector."""
        return self.vector_bytes // BYTES[element]

    def vectors_of(self, channels: int, element: str) -> int:
        """How many vectors hold so many channels."""
        return -(-channels // self.lanes(element))

    def panels(self, vectors: int) -> int:
        """How many panels hold so many vectors of weights: wide ones, then those of a single vector."""
        return vectors // self.vectors + vectors % self.vectors

    def with_rows(self, rows: int) -> "Machine":
        """The machine with a micro-kernel of another height."""
        return self if rows == self.rows else replace(self, rows=rows)


AVX512 = Machine("avx512", 64, 14, 2, 1 * MIB, 32 * MIB)
AVX2 = Machine("avx2", 32, 6, 2, 512 * KIB, 16 * MIB)
NEON = Machine(
    "neon", 16, 8, 2, 512 * KIB, 4 * MIB, spare_adders=True, prefetch=False, native_maximum=True, by_element=True
)
MACHINES = {machine.name: machine for machine in (AVX512, AVX2, NEON)}


@lru_cache(maxsize=1)
def host() -> Machine:
    """The configuration of the machine we run on. Raises RuntimeError where there is none (see `supported`)."""
    from llvmlite import binding

    features: Any = binding.get_host_cpu_features()
    adders = binding.get_host_cpu_name().startswith("znver")
    if features.get("avx512f") and features.get("avx512vl"):
        return replace(AVX512, spare_adders=adders, l2=_second_level() or AVX512.l2)
    if features.get("avx2") and features.get("fma"):
        return replace(AVX2, spare_adders=adders, l2=_second_level() or AVX2.l2)
    if platform.machine().lower() in ("aarch64", "arm64"):
        return NEON
    raise RuntimeError("no kernels for this processor: it has neither AVX2 with FMA nor NEON")


def _second_level() -> int | None:
    """Bytes of a core's second-level cache as Linux has them; None where it does not say."""
    with suppress(OSError, ValueError):
        return int(Path("/sys/devices/system/cpu/cpu0/cache/index2/size").read_text().removesuffix("K\n")) * KIB
    return None


def supported() -> bool:
    """Whether there are kernels for this processor."""
    try:
        host()
    except RuntimeError:
        return False
    return True
