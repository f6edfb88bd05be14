"""What a library's machine code is made from, as data: the lowering child reads nothing else."""

import json
from dataclasses import dataclass

from lrw_kernels.aarch64.assemble import Assembly
from lrw_kernels.cpu.library import Kernel


@dataclass(frozen=True)
class Code:
    """Kernels by number and the constants around them.

    image: what begins the workspace, with symbolic addresses at `relocations`; behind it `zero_bytes` of zeros, from
    `buffers_at` on the buffers. `step_count` records of steps lie at `regions_at`. header: the first bytes of the
    weights this code is for.
    """

    name: str
    kernels: tuple[Kernel, ...]
    image: bytes
    relocations: tuple[int, ...]
    zero_bytes: int
    buffers_at: int
    regions_at: int
    step_count: int
    workspace_bytes: int
    threads: int
    header: bytes

    @staticmethod
    def of(assembly: Assembly) -> "Code":
        """The code of an assembly."""
        a = assembly
        return Code(
            a.name, a.kernels, a.image.data, a.image.relocations, a.buffers_at - len(a.image.data), a.buffers_at,
            a.regions_at, a.step_count, a.workspace_bytes, a.threads, a.header,
        )  # fmt: skip

    def to_json(self) -> str:
        """All of it; bytes in hexadecimal."""
        values = {**self.__dict__, "image": self.image.hex(), "header": self.header.hex()}
        values["kernels"] = [[kernel.maker, kernel.arguments, kernel.count] for kernel in self.kernels]
        return json.dumps(values)

    @staticmethod
    def from_json(text: str) -> "Code":
        """The inverse of `to_json`."""
        values = json.loads(text)
        kernels = tuple(Kernel(maker, tuple(arguments), count) for maker, arguments, count in values.pop("kernels"))
        image, header = (bytes.fromhex(values.pop(name)) for name in ("image", "header"))
        return Code(
            kernels=kernels, image=image, header=header, **{**values, "relocations": tuple(values["relocations"])}
        )
