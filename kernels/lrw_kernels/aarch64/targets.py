"""The machines a layer is lowered for: what differs between targets stands in this table only."""

import platform
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Target:
    """One operating system and instruction set.

    triple, cpu: LLVM's names; cpu is the oldest machine that can run the code. tune: the CPU LLVM schedules
    for. arch: `platform.machine()` there. elf_machine: e_machine of its ELF files. emulation: ld's -m.
    prefix: of the cross tools' names.
    """

    name: str
    triple: str
    cpu: str
    tune: str
    arch: str
    elf_machine: int
    emulation: str
    prefix: str

    @property
    def is_host(self) -> bool:
        """Whether this process could load such a library itself."""
        return sys.platform == "linux" and platform.machine() == self.arch


# cortex-a55 is the slowest core still common, and its schedule costs out-of-order cores nothing measurable.
_ARM: dict[str, Any] = {
    "cpu": "generic",
    "tune": "cortex-a55",
    "arch": "aarch64",
    "elf_machine": 183,
    "emulation": "aarch64linux",
    "prefix": "aarch64-linux-gnu-",
}
_X86: dict[str, Any] = {
    "cpu": "x86-64",
    "tune": "generic",
    "arch": "x86_64",
    "elf_machine": 62,
    "emulation": "elf_x86_64",
    "prefix": "x86_64-linux-gnu-",
}

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("aarch64-linux-gnu", "aarch64-unknown-linux-gnu", **_ARM),
        Target("aarch64-linux-android24", "aarch64-unknown-linux-android24", **_ARM),
        Target("x86_64-linux-gnu", "x86_64-unknown-linux-gnu", **_X86),
    )
}


def find_target(name: str) -> Target:
    """The target called `name`. Raises ValueError listing those there are."""
    if name not in TARGETS:
        raise ValueError(f"target: {name!r} is not known; accepted are {', '.join(TARGETS)}")
    return TARGETS[name]
