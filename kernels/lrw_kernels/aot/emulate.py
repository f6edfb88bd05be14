"""Run an exported network here, to check it: natively where the machine fits, otherwise under qemu-user."""

import ctypes
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from lrw_kernels.aot import abi
from lrw_kernels.aot.manifest import Artifacts
from lrw_kernels.aot.targets import Target, find_target

Array = npt.NDArray[np.float32]

COMPILER, EMULATOR, SYSROOT = "aarch64-linux-gnu-gcc", "qemu-aarch64", Path("/usr/aarch64-linux-gnu")
_MESSAGE_LINES = 6


def missing_tools(target: str) -> list[str]:
    """The names of the tools `run_network` lacks on this machine for `target`; empty when it can run.

    Raises ValueError for an unknown target.
    """
    machine = find_target(target)
    if machine.is_host:
        return []
    if machine.arch != "aarch64" or machine.form != "elf":
        return [f"a machine for {target}"]
    loader = SYSROOT / "lib" / "ld-linux-aarch64.so.1"
    tools = [tool for tool in (COMPILER, EMULATOR) if shutil.which(tool) is None]
    return tools + ([] if loader.exists() else [str(loader)])


def run_network(artifacts: Artifacts, *inputs: Array, cpu: str = "cortex-a76", threads: int = 1) -> tuple[Array, ...]:
    """The outputs, each [N, D', H', W', C'] float32, of `inputs`, each [N, D, H, W, C] float32, by the built library;
    `cpu` is qemu's.

    Raises ValueError when inputs do not fit, RuntimeError when a tool is missing or the run fails.
    """
    if len(inputs) != len(artifacts.inputs):
        raise ValueError(f"inputs: {len(inputs)}; accepted are {len(artifacts.inputs)}")
    for x, port in zip(inputs, artifacts.inputs, strict=True):
        if x.dtype != np.float32 or x.shape != port.size:
            raise ValueError(f"{port.name}: {x.dtype} {list(x.shape)}; accepted is float32 {list(port.size)}")
    lacking = missing_tools(artifacts.target.name)
    if lacking:
        raise RuntimeError(f"run: {artifacts.target.name} needs {', '.join(lacking)}")
    with TemporaryDirectory(prefix="lrw-run-") as name:
        folder = Path(name)
        if artifacts.target.is_host and artifacts.shared is not None and threads == 1:
            return _run_native(artifacts, artifacts.shared, [*map(np.ascontiguousarray, inputs)], folder)
        program = build_example(artifacts, folder)
        for x, port in zip(inputs, artifacts.inputs, strict=True):
            x.astype("<f4").tofile(folder / port.name)
        names = [port.name for port in (*artifacts.inputs, *artifacts.outputs)]
        files = [str(artifacts.weights.resolve()), *names, str(threads)]
        _call([*launcher(artifacts.target, cpu), str(program), *files], folder, {s.value: s.name for s in abi.Status})
        return tuple(
            np.fromfile(folder / port.name, "<f4").astype(np.float32).reshape(port.size) for port in artifacts.outputs
        )


def build_example(artifacts: Artifacts, folder: Path) -> Path:
    """The generated example program, statically linked, in `folder`. Raises RuntimeError where the compiler fails."""
    sources = [artifacts.manifest.with_name(name).resolve() for name in ("main.c", "lrw_threads.c")]
    compiler = "cc" if artifacts.target.is_host else COMPILER
    program = folder / f"{artifacts.name}_example"
    options = ["-std=c99", "-O1", "-static", f"-I{artifacts.manifest.parent.resolve()}", "-o", str(program)]
    _call([compiler, *options, *map(str, sources), str(artifacts.static.resolve()), "-pthread"], folder)
    return program


def launcher(target: Target, cpu: str) -> list[str]:
    """The command line that stands before a program of `target` to run it here, on a `cpu` of qemu's."""
    return [] if target.is_host else [EMULATOR, "-cpu", cpu, "-L", str(SYSROOT)]


def aligned_buffer(size: int) -> npt.NDArray[np.uint8]:
    """`size` bytes on a 64-byte boundary, all bits set: as floats, NaN."""
    data = np.full(size + abi.ALIGNMENT, 0xFF, np.uint8)
    start = -data.ctypes.data % abi.ALIGNMENT
    return data[start : start + size]


def _run_native(artifacts: Artifacts, shared: Path, inputs: Sequence[Array], folder: Path) -> tuple[Array, ...]:
    # A copy of the library, because the loader would hand out an older build that lay under the same path.
    library = ctypes.CDLL(str(shutil.copyfile(shared, folder / shared.name)))
    needed = getattr(library, abi.symbol(artifacts.name, "workspace_bytes"))
    needed.restype = ctypes.c_size_t
    if needed() != artifacts.workspace_bytes:  # it would write behind what is there
        raise RuntimeError(f"run: {shared.name} wants {needed()} bytes of workspace, not {artifacts.workspace_bytes}")
    function = getattr(library, abi.symbol(artifacts.name, "run"))
    data = np.fromfile(artifacts.weights, np.uint8)
    weights, workspace = aligned_buffer(data.size), aligned_buffer(artifacts.workspace_bytes)
    weights[:] = data
    outputs = tuple(np.full(port.size, np.nan, np.float32) for port in artifacts.outputs)
    buffers = [array.ctypes.data for array in [*inputs, *outputs]] + [weights.ctypes.data, workspace.ctypes.data]
    function.argtypes, function.restype = [ctypes.c_void_p] * (len(buffers) + 1), ctypes.c_int
    status = function(*buffers, None)
    if status != abi.Status.OK:
        raise RuntimeError(f"run: {artifacts.name} returned {abi.Status(status).name}")
    return outputs


def _call(command: list[str], folder: Path, names: Mapping[int, str] = MappingProxyType({})) -> None:
    """Raise RuntimeError with a command's last lines where it fails, or with the status' name where it said nothing."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = "\n".join((done.stdout + done.stderr).strip().splitlines()[-_MESSAGE_LINES:])
        known = not message and done.returncode in names
        status = f"{done.returncode}, LRW_{names[done.returncode]}" if known else str(done.returncode)
        raise RuntimeError(f"run: {' '.join(command)} gave exit status {status}\n{message}".rstrip())
