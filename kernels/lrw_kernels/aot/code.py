"""What a library's machine code is made from, as data: the lowering child reads nothing else."""

import json
from dataclasses import dataclass

from lrw_kernels.aot.weights import HEADER_BYTES, header_of
from lrw_kernels.codegen.kernel import Kernel
from lrw_kernels.codegen.references import Section, section_of
from lrw_kernels.program.image import Frozen
from lrw_kernels.program.program import Program


@dataclass(frozen=True)
class Code:
    """Kernels by number and the constants around them.

    image: what begins the workspace, with symbolic addresses at `relocations`; behind it `zero_bytes` of zeros, from
    `buffers_at` on the buffers. `step_count` records of steps lie at `regions_at`. header: the first bytes of the
    weights this code is for. outside: how many buffers of the caller's there are.
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
    outside: int

    @staticmethod
    def of(program: Program) -> "Code":
        """The code of `program`, whose weights then lie behind the header of their file."""
        a = program
        return Code(
            a.name, a.kernels, _behind_header(a.image), a.image.relocations, a.buffers_at - len(a.image.data),
            a.buffers_at, a.regions_at, a.step_count, a.workspace_bytes, a.threads, header_of(a.weights),
            len(a.outside),
        )  # fmt: skip

    def to_json(self) -> str:
        """The code as JSON, bytes in hexadecimal; `from_json` reads it back."""
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


def _behind_header(image: Frozen) -> bytes:
    """The image's bytes; weights lie behind the header of their file."""
    data = bytearray(image.data)
    for at in image.relocations:
        address = int.from_bytes(data[at : at + 8], "little")
        if section_of(address) == Section.WEIGHTS:
            data[at : at + 8] = (address + HEADER_BYTES).to_bytes(8, "little")
    return bytes(data)
