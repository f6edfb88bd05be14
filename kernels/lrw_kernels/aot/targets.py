"""The machines a network is lowered for: what differs between targets stands in this table only."""

import platform
import sys
from dataclasses import dataclass
from typing import Any

from lrw_kernels.aot.processors import ANY_CPU, HALF_CPU, X86_64_V3_CPU, X86_64_V4_CPU
from lrw_kernels.codegen.machine import AVX2, AVX512, BYTES, NEON, Machine
from lrw_kernels.untrusted import shown


@dataclass(frozen=True)
class Target:
    """One operating system and instruction set.

    triple, cpu: LLVM's names; cpu is the oldest machine that can run the code, `needs` what that is in words; features:
    what it has beyond cpu. entry_cpu: what can run the C functions themselves, which ask for the rest. tune: the CPU
    LLVM schedules for. machine: what the kernels are made for; element: the numbers of the Winograd domain and its
    weights. arch: `platform.machine()` there. form: of object files, "elf" or "macho", and their machine number.
    emulation: ld's -m. prefix: of the cross tools' names. cpu_check: IR of `i1 @lrw_cpu()`, whether the processor at
    run time will do.
    """

    name: str
    triple: str
    cpu: str
    entry_cpu: str
    needs: tuple[str, ...]
    tune: str
    machine: Machine
    element: str
    features: str
    arch: str
    form: str
    object_machine: int
    emulation: str
    prefix: str
    cpu_check: str

    @property
    def is_host(self) -> bool:
        """Whether this process could load such a library itself."""
        return self.form == "elf" and sys.platform == "linux" and platform.machine() == self.arch

    @property
    def vector_bits(self) -> int:
        """Bits of the widest vectors kernels use."""
        return 8 * self.machine.vector_bytes * (4 // BYTES[self.element])


# cortex-a55 is the slowest core still common, and its schedule costs out-of-order cores nothing measurable.
_ARM: dict[str, Any] = {
    "cpu": "generic",
    "entry_cpu": "generic",
    "needs": ("Armv8.0-A", "Advanced SIMD"),
    "tune": "cortex-a55",
    "machine": NEON,
    "element": "float32",
    "features": "",
    "arch": "aarch64",
    "form": "elf",
    "object_machine": 183,
    "emulation": "aarch64linux",
    "prefix": "aarch64-linux-gnu-",
    "cpu_check": ANY_CPU,
}
_APPLE: dict[str, Any] = _ARM | {
    "cpu": "apple-a7",
    "entry_cpu": "apple-a7",
    "form": "macho",
    "object_machine": 0x0100000C,
    "emulation": "",
}
_HALF: dict[str, Any] = _ARM | {
    "needs": ("Armv8.2-A", "Advanced SIMD", "half precision (FEAT_FP16)"),
    "element": "float16",
    "features": "+fullfp16",
    "cpu_check": HALF_CPU,
}
_X86: dict[str, Any] = {
    "cpu": "x86-64-v3",
    "entry_cpu": "x86-64",
    "needs": ("x86-64-v3", "AVX2", "FMA"),
    "tune": "generic",
    "machine": AVX2,
    "element": "float32",
    "features": "",
    "arch": "x86_64",
    "form": "elf",
    "object_machine": 62,
    "emulation": "elf_x86_64",
    "prefix": "x86_64-linux-gnu-",
    "cpu_check": X86_64_V3_CPU,
}
_X86_V4: dict[str, Any] = _X86 | {
    "cpu": "x86-64-v4",
    "needs": ("x86-64-v4", "AVX-512"),
    "machine": AVX512,
    "cpu_check": X86_64_V4_CPU,
}

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("aarch64-linux-gnu", "aarch64-unknown-linux-gnu", **_ARM),
        Target("aarch64-linux-android24", "aarch64-unknown-linux-android24", **_ARM),
        Target("aarch64-linux-gnu-fp16", "aarch64-unknown-linux-gnu", **_HALF),
        Target("aarch64-linux-android24-fp16", "aarch64-unknown-linux-android24", **_HALF),
        Target("arm64-apple-macos", "arm64-apple-macosx12.0", **_APPLE),
        Target("arm64-apple-ios", "arm64-apple-ios15.0", **_APPLE),
        Target("x86_64-linux-gnu", "x86_64-unknown-linux-gnu", **_X86),
        Target("x86_64-linux-gnu-v4", "x86_64-unknown-linux-gnu", **_X86_V4),
    )
}


def find_target(name: str) -> Target:
    """The target called `name`. Raises ValueError listing those there are."""
    if name not in TARGETS:
        raise ValueError(f"target: {shown(name)} is not known; accepted are {', '.join(TARGETS)}")
    return TARGETS[name]
