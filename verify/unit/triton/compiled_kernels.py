"""GPU kernels without a GPU: what the host would launch is written down, compiled, and its machine code looked at."""

import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lrw_kernels.triton import products, transforms

MODULES = {"gather": transforms, "scatter": transforms, "operand": products, "products": products,
           "products_scatter": products}  # fmt: skip
SHARED = {80: 163 << 10, 90: 227 << 10}  # bytes of shared memory a program may have
_TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int32: "*i32"}
_OPTIONS = ("num_warps", "num_stages", "maxnreg", "enable_fp_fusion")


@dataclass(frozen=True)
class Launch:
    """A kernel by name, and what it was to be started with."""

    name: str
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    options: dict[str, Any]

    @property
    def form(self) -> tuple[object, ...]:
        """What is equal of launches that the same machine code serves."""
        types = [(name, _special(name, value)) for name, value in self.arguments.items()]
        return self.name, *types, *self.options.items()

    def compiled(self, capability: int) -> "Compiled":
        """Machine code for a GPU of that compute capability (80, 90), specialised as Triton would."""
        signature, constants, attributes = {}, {}, {}
        for i, (name, value) in enumerate(self.arguments.items()):
            signature[name], known = _special(name, value)
            if signature[name] == "constexpr":
                constants[name] = value
            elif known:
                attributes[(i,)] = [["tt.divisibility", 16]]
        source = ASTSource(getattr(MODULES[self.name], self.name), signature, constants, attributes)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=self.options)
        return Compiled(made.asm["cubin"], made.metadata.shared, capability)


@dataclass(frozen=True)
class Compiled:
    """Machine code, its bytes of shared memory, the GPU it is for."""

    binary: bytes
    shared: int
    capability: int

    def _told(self, tool: str, *flags: str) -> str:
        """What one of the tools that come with Triton prints of the machine code."""
        path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
        with TemporaryDirectory() as folder:
            binary = Path(folder, "kernel.cubin")
            binary.write_bytes(self.binary)
            return subprocess.run([path, *flags, binary], capture_output=True, text=True, check=True).stdout

    @cached_property
    def _usage(self) -> dict[str, int]:
        found = re.findall(r"\b(STACK|LOCAL):(\d+)", self._told("cuobjdump", "-res-usage"))
        return {name: int(number) for name, number in found}

    @property
    def spilled(self) -> int:
        """Bytes of a thread's stack: registers that had no room, and arrays."""
        return self._usage["STACK"] + self._usage["LOCAL"]

    @cached_property
    def instructions(self) -> Counter[str]:
        """How often each instruction stands in the code; memory accesses with their bits, LDG.128."""
        counts: Counter[str] = Counter()
        line = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][\w.]*)", flags=re.M)
        for operation in line.findall(self._told("nvdisasm", "-c")):
            name, *modifiers = operation.split(".")
            bits = next((m for m in modifiers if m in ("64", "128")), "")
            counts[f"{name}.{bits}" if bits else name] += 1
        return counts


class _Recorder:
    def __init__(self, name: str, found: list[Launch]) -> None:
        self.name, self.found = name, found
        self.parameters = getattr(MODULES[name], name).arg_names

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*values: Any, **named: Any) -> None:
            options = {key: named.pop(key) for key in _OPTIONS if key in named}
            arguments = dict(zip(self.parameters, values, strict=False)) | named
            assert set(arguments) == set(self.parameters)
            self.found.append(Launch(self.name, grid, {p: arguments[p] for p in self.parameters}, options))

        return launch


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Kernels are not run, only written down in the list given; tensors may be on the meta device."""
    found: list[Launch] = []
    with ExitStack() as stack:
        for name, module in MODULES.items():
            stack.enter_context(patch.object(module, name, _Recorder(name, found)))
        yield found


def _special(name: str, value: Any) -> tuple[str, object]:
    """An argument's type, and what code knows of it: the value of a constant, or whether 16 divides it."""
    if isinstance(value, Tensor):
        return _TYPES[value.dtype], True
    if name.isupper() or value is None or isinstance(value, bool) or value == 1:
        return "constexpr", value
    return "i32" if -(2**31) <= value < 2**31 else "i64", value % 16 == 0
