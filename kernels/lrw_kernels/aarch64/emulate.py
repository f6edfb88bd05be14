"""Run an exported layer here, to check it: natively where the machine fits, otherwise under qemu-user."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from lrw_kernels.aarch64 import abi
from lrw_kernels.aarch64.build import Artifacts
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.aarch64.targets import find_target

Array = npt.NDArray[np.float32]

_COMPILER, _EMULATOR, _SYSROOT = "aarch64-linux-gnu-gcc", "qemu-aarch64", Path("/usr/aarch64-linux-gnu")
_MESSAGE_LINES = 6

# Output and workspace start as NaN (all bits set): whatever the layer forgets to write shows.
_MAIN = """\
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lrw_{name}.h"

static void *buffer(size_t bytes) {{
  void *p = aligned_alloc(LRW_ALIGNMENT, (bytes + LRW_ALIGNMENT - 1) / LRW_ALIGNMENT * LRW_ALIGNMENT);
  if (!p) exit(10);
  return memset(p, 0xff, bytes);
}}

static int whole(const char *path, const char *mode, void *data, size_t bytes) {{
  FILE *f = fopen(path, mode);
  size_t done = f ? (*mode == 'r' ? fread(data, 1, bytes, f) : fwrite(data, 1, bytes, f)) : 0;
  return f && fclose(f) == 0 && done == bytes;
}}

int main(int argc, char **argv) {{
  float *input = buffer(LRW_{name}_INPUT_BYTES), *output = buffer(LRW_{name}_OUTPUT_BYTES);
  void *weights = buffer(LRW_{name}_WEIGHTS_BYTES), *workspace = buffer(lrw_{name}_workspace_bytes());
  if (argc != 4 || lrw_abi_version() != LRW_ABI_VERSION) return 11;
  if (lrw_{name}_workspace_bytes() != LRW_{name}_WORKSPACE_BYTES) return 12;
  if (!whole(argv[1], "rb", input, LRW_{name}_INPUT_BYTES)) return 13;
  if (!whole(argv[2], "rb", weights, LRW_{name}_WEIGHTS_BYTES)) return 14;
  int status = lrw_{name}_run(input, output, weights, workspace);
  if (status != LRW_OK) return status;
  return whole(argv[3], "wb", output, LRW_{name}_OUTPUT_BYTES) ? 0 : 15;
}}
"""


def missing_tools(target: str) -> list[str]:
    """What `run_layer` lacks on this machine for `target`; empty when it can run.

    Raises ValueError for an unknown target.
    """
    machine = find_target(target)
    if machine.is_host:
        return []
    if machine.arch != "aarch64":
        return [f"a Linux machine of type {machine.arch}"]
    loader = _SYSROOT / "lib" / "ld-linux-aarch64.so.1"
    tools = [tool for tool in (_COMPILER, _EMULATOR) if shutil.which(tool) is None]
    return tools + ([] if loader.exists() else [str(loader)])


def run_layer(artifacts: Artifacts, x: Array, *, cpu: str = "cortex-a76") -> Array:
    """y [N, D', H', W', Cout] float32 of x [N, D, H, W, Cin] float32, by the built library; `cpu` is qemu's.

    Raises ValueError when x does not fit, RuntimeError when a tool is missing or the run fails.
    """
    spec, target = artifacts.spec, find_target(artifacts.target)
    if x.dtype != np.float32 or x.shape != spec.input_shape:
        raise ValueError(f"x: {x.dtype} {list(x.shape)}; accepted is float32 {list(spec.input_shape)}")
    if artifacts.library is None:
        raise RuntimeError(f"run_layer: {artifacts.note}")
    lacking = missing_tools(artifacts.target)
    if lacking:
        raise RuntimeError(f"run_layer: {artifacts.target} needs {', '.join(lacking)}")
    with TemporaryDirectory(prefix="lrw-run-") as folder:
        library = Path(folder, artifacts.library.name)
        shutil.copyfile(artifacts.library, library)
        shutil.copyfile(artifacts.weights, Path(folder, "weights"))
        if target.is_host:
            return _run_native(spec, library, np.ascontiguousarray(x))
        shutil.copyfile(artifacts.header, Path(folder, f"lrw_{spec.name}.h"))
        return _run_emulated(spec, library, x, cpu)


def aligned_buffer(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes on a 64-byte boundary, all bits set: as floats, NaN."""
    data = np.full(size + abi.ALIGNMENT, 0xFF, np.uint8)
    start = -data.ctypes.data % abi.ALIGNMENT
    return data[start : start + size]


def _run_native(spec: LayerSpec, library: Path, x: Array) -> Array:
    # The library is a copy, because the loader would hand out an older build that lay under the same path.
    run = getattr(ctypes.CDLL(str(library)), abi.run_symbol(spec.name))
    run.argtypes, run.restype = [ctypes.c_void_p] * 4, ctypes.c_int
    weights, workspace = aligned_buffer(spec.weights_bytes), aligned_buffer(spec.workspace_bytes)
    weights[:] = np.fromfile(library.with_name("weights"), np.uint8)
    y = np.full(spec.output_shape, np.nan, np.float32)
    status = run(x.ctypes.data, y.ctypes.data, weights.ctypes.data, workspace.ctypes.data)
    if status != abi.STATUS_OK:
        raise RuntimeError(f"run_layer: {spec.name} returned status {status}")
    return y


def _run_emulated(spec: LayerSpec, library: Path, x: Array, cpu: str) -> Array:
    folder = library.parent
    (folder / "main.c").write_text(_MAIN.format(name=spec.name))
    x.astype("<f4").tofile(folder / "input")
    sources = ["main.c", library.name, f"-Wl,-rpath,{folder}"]
    _call([_COMPILER, "-std=c11", "-O1", "-o", "main", *sources], folder)
    _call([_EMULATOR, "-cpu", cpu, "-L", str(_SYSROOT), "./main", "input", "weights", "output"], folder)
    return np.fromfile(folder / "output", "<f4").astype(np.float32).reshape(spec.output_shape)


def _call(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_MESSAGE_LINES:])
        raise RuntimeError(f"run_layer: {' '.join(command)} gave exit status {done.returncode}\n{message}")
