"""Small ARM programs in assembly, and a cache folder of the tests' own, for the tests of the ARM bench."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.arm.program import Program
from bench.layers import Layer
from verify.programs.exported import call, need

SMALL = Layer("small", 4, 8, (4, 6, 6))
QEMU = ("gcc", "qemu-aarch64", "aarch64-linux-gnu-gcc")
START = """
.macro mark tag
  movz x8, #0xA120
  movk x8, #7, lsl #16
  add x8, x8, #\\tag
  svc #0
.endm
.bss
.balign 4096
data: .zero 131072
.text
.global _start
_start:
  ldr x1, =data
  bl run
  mark 0
  bl run
  mark 1
  bl run
  bl run
  mark 2
  mov x8, #93
  mov x0, #0
  svc #0
run:
  {run}
  ret
"""
LOOP = """
  mov x0, #1000
1: ldr q0, [x1]
  fmla v1.4s, v2.4s, v0.s[0]
  str q0, [x1, #16]
  subs x0, x0, #1
  b.ne 1b
"""
EACH = """
  ldp q0, q1, [x1]
  ld1 {v0.4s, v1.4s, v2.4s}, [x1]
  ld1r {v3.4s}, [x1]
  ld1 {v3.s}[1], [x1]
  ld2 {v4.2s, v5.2s}, [x1]
  ldr x3, [x1, #8]
  ldrb w3, [x1]
  ldpsw x3, x4, [x1]
  ldar w3, [x1]
  stp x3, x4, [x1]
  st1 {v0.d}[1], [x1]
  str s0, [x1]
  stur q0, [x1, #16]
  prfm pldl1keep, [x1]
  fmla v6.4s, v7.4s, v8.4s
  fmls v6.4s, v7.4s, v8.s[3]
  fmla v6.8h, v7.8h, v8.h[1]
  fmul v6.4s, v7.4s, v8.s[1]
  fadd v6.4s, v7.4s, v8.4s
  fmadd s6, s7, s8, s9
  sdot v6.4s, v7.16b, v8.16b
  zip1 v6.4s, v7.4s, v8.4s
  nop
  b 1f
1:
"""


@pytest.fixture(scope="session")
def bench_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Plugins and peers go to a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LRW_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def assembled(folder: Path, run: str) -> Program:
    """A program without a library whose runs are the instructions `run`."""
    need(*QEMU)
    (folder / "main.S").write_text(START.replace("{run}", run))
    options = ("-nostdlib", "-static", "-march=armv8.2-a+fp16+dotprod")
    call("aarch64-linux-gnu-gcc", *options, "main.S", "-o", "main", cwd=folder)
    nothing = np.zeros(1)
    return Program(("./main",), folder, lambda: nothing.astype(np.float32), lambda: nothing)
