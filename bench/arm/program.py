"""What is measured: a guest program that runs one layer between marks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

CPU = "cortex-a76"
"""The guest's processor, for every party: another one changes which kernels the libraries choose."""


@dataclass(frozen=True)
class Program:
    """An aarch64 program that runs a layer four times, in `folder`, and writes what it computed.

    It marks its runs by system calls, `syscall(500000 + tag)`: run, mark 0, run, mark 1, run, run, mark 2. What one run
    takes is the difference between regions 2 and 1, which all that happens once or at a mark has left.

    argv: the program and its arguments. sysroot: where the guest's absolute paths begin, None for a static program.
    environment: variables of the guest. output: the result [Cout, D, H, W], read after the program ran. expected: the
    same in float64, from the same float32 input and weights.
    """

    argv: tuple[str, ...]
    folder: Path
    output: Callable[[], Floats]
    expected: Callable[[], Doubles]
    sysroot: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
