"""Networks exported once for all tests, what the float64 interpreter makes of them, and the tools to run them with."""

import ctypes
import fcntl
import mmap
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import cycle
from pathlib import Path
from traceback import format_exception
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import lrw
from lrw.geometry import Geometry
from lrw.nets import C3D, R3D18, UNet3D
from lrw.trace import trace
from lrw_kernels.aot import Artifacts, abi, build_network, missing_tools
from lrw_kernels.aot.emulate import COMPILER, EMULATOR
from lrw_kernels.network.graph import INPUT, Network, Node
from lrw_kernels.network.operators import Direct
from lrw_kernels.winograd import Tile
from verify.programs.errors import arithmetic
from verify.programs.every_operator import every_operator, some_columns
from verify.strategies import Array
from verify.unit.trace.nets import Gated, MedicalUNet, MedResNet18, gated, settled

NATIVE, ARM, ANDROID = "x86_64-linux-gnu", "aarch64-linux-gnu", "aarch64-linux-android24"
WIDE = "x86_64-linux-gnu-v4"
THREADS = 4
GUARD_BYTES = 64


@dataclass(frozen=True)
class Case:
    """A network, inputs [N, D, H, W, C] for it, and its exact outputs with how far float32 may be from them."""

    network: Network
    inputs: tuple[Array, ...]

    @property
    def x(self) -> Array:
        """The input of a network that has one."""
        (x,) = self.inputs
        return x

    @cached_property
    def expected(self) -> list[tuple[Array, Array]]:
        """Each output: [N, D', H', W', C'] and a tolerance per channel."""
        return arithmetic(self.network, *(torch.from_numpy(x).permute(0, 4, 1, 2, 3) for x in self.inputs))


def _monai_unet() -> nn.Module:
    """Instance and group norm, leaky ReLU and GELU take turns."""
    acts = cycle([lambda: nn.LeakyReLU(0.1), nn.GELU])
    norms = cycle([lambda c: nn.InstanceNorm3d(c, affine=True), lambda c: nn.GroupNorm(2, c)])
    return MedicalUNet(lambda c: next(norms)(c), lambda: next(acts)(), trilinear=False)


def _pruned() -> nn.Module:
    """What compression leaves: whole columns, then blocks of output channels, one of them without any."""
    flat, same = Tile.of((1, 2, 2), (1, 3, 3)), Tile.of(2, origin=(0, 1, 0))
    whole = lrw.WinogradConv3d(2, 6, (1, 3, 3), padding=(0, 1, 1), tile=(1, 2, 2))
    pruner = lrw.ColumnPruner(nn.Sequential(whole), 0.5)
    whole(torch.randn(1, 2, 4, 5, 6)).square().mean().backward()
    pruner.observe()
    pruner.prune()
    blocks = ((16, some_columns(20, same)), (3, ()), (5, some_columns(7, same)))
    grouped = lrw.GroupedConv3d(6, blocks, Geometry(same, (1, 1, 1)), bias=True)
    last = lrw.GroupedConv3d(24, ((3, some_columns(7, flat)),), Geometry(flat, (0, 1, 1)), bias=True)
    with torch.no_grad():
        for p in (*grouped.parameters(), *last.parameters()):
            p.normal_(0, 0.2)
    return nn.Sequential(lrw.compress(nn.Sequential(whole)), nn.ReLU(), grouped, nn.ReLU(), last)


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "c3d": (lambda: C3D(1, 3, (4, 9, 12), 2), (1, 1, 4, 9, 12)),
    "r3d18": (lambda: R3D18(2, 3, (3, 64, 64), 2), (1, 2, 3, 64, 64)),
    "unet": (lambda: UNet3D(1, 3, 3, 2), (2, 1, 4, 6, 4)),
    "monai": (_monai_unet, (1, 1, 4, 8, 8)),
    "med": (lambda: MedResNet18(2), (1, 1, 6, 6, 6)),
    "pruned": (_pruned, (2, 2, 4, 5, 6)),
}


def _several() -> Network:
    torch.manual_seed(1)
    return trace(settled(Gated()), gated(), "several", tile=2)


_WEIGHT = np.arange(1, 7, dtype=np.float32).reshape(1, 1, 1, 2, 3)
TINY = Network.single("tiny", (1, 1, 2, 3, 2), (Node("only", Direct(_WEIGHT), (INPUT,), (1, 1, 2, 3, 3)),))


@lru_cache
def case(name: str) -> Case:
    """One of NETS, "every" operator, "several" inputs and outputs, or "tiny", the smallest there is."""
    generator = np.random.default_rng(7)
    if name in NETS:
        torch.manual_seed(1)
        build, shape = NETS[name]
        network = trace(settled(build()), torch.randn(*shape), name, tile=2)
    else:
        network = {"every": every_operator, "several": _several, "tiny": lambda: TINY}[name]()
    return Case(network, tuple(generator.standard_normal(size).astype(np.float32) for size in network.inputs.values()))


NAMES = ("every", "several", *NETS)
HERE = ("every", "several", "c3d", "pruned")  # built for this machine too; all of NAMES run in this process
TARGETS = [(name, ARM) for name in (*NAMES, "tiny")] + [(name, NATIVE) for name in (*HERE, "tiny")]
TARGETS += [("tiny", ANDROID), ("tiny", WIDE), ("every", WIDE)]


class Builder:
    """Networks built once for all tests, two at a time."""

    def __init__(self, folder: Path) -> None:
        self._made: dict[tuple[str, str], Artifacts | Exception] = {}
        networks = {name: case(name).network for name, _ in TARGETS}  # an error of ours ends it before any build
        with ThreadPoolExecutor(2) as pool:
            for name, target in TARGETS:
                network, out = networks[name], folder / target / name
                job = pool.submit(build_network, network, out, target=target, threads=THREADS)
                job.add_done_callback(partial(self._keep, (name, target)))

    def _keep(self, key: tuple[str, str], job: "Future[Artifacts]") -> None:
        error = job.exception()
        self._made[key] = job.result() if error is None else RuntimeError("".join(format_exception(error)))

    def __call__(self, name: str, target: str) -> Artifacts:
        made = self._made[name, target]
        if isinstance(made, Exception):
            raise made
        return made


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Builder:
    """All networks, done before any test begins, since some tests change PATH or what lowering gives; by one process of
    the run, while others that want them wait."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if hasattr(request.config, "workerinput") else folder  # of pytest-xdist
    kept = folder / "networks.pickle"
    with (folder / "networks.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            written = folder / "networks.new"
            written.write_bytes(pickle.dumps(Builder(folder / "networks")))
            written.replace(kept)  # whole, or not there
        builder: Builder = pickle.loads(kept.read_bytes())
    return builder


def need(*tools: str, target: str | None = None) -> None:
    """Skip with the reason when something is missing; fail where LRW_REQUIRE_QEMU says that the emulator and the
    compilers must be there, and one of them is not."""
    if target == NATIVE:
        tools += ("gcc",)
    compilers = missing_tools(target) if target else []
    absent = [tool for tool in tools if shutil.which(tool) is None]
    compilers += [tool for tool in absent if tool in (EMULATOR, COMPILER, "gcc")]
    if compilers and os.environ.get("LRW_REQUIRE_QEMU") == "1":
        pytest.fail(f"LRW_REQUIRE_QEMU=1, but missing: {', '.join(compilers)}")
    if missing := dict.fromkeys([*compilers, *absent]):
        pytest.skip(f"missing: {', '.join(missing)}")


def call(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    texts = [str(part) for part in command]
    done = subprocess.run(texts, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Fenced:
    """`size` bytes, all bits set, that end where a page without access begins (or the last 64-byte line before it)."""

    def __init__(self, size: int, alignment: int = 4) -> None:
        page = mmap.PAGESIZE
        room = -(-size // page) * page
        self._libc = ctypes.CDLL(None)
        self._libc.mmap.restype = ctypes.c_void_p
        start = self._libc.mmap(None, ctypes.c_size_t(room + page), 3, 0x22, -1, ctypes.c_long(0))
        self._memory = (ctypes.c_void_p(start), ctypes.c_size_t(room + page))
        assert self._libc.mprotect(ctypes.c_void_p(start + room), ctypes.c_size_t(page), 0) == 0
        self.address = start + (room - size) // alignment * alignment
        self.bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.address))
        self.bytes[:] = 0xFF

    def close(self) -> None:
        """Give the memory back; `bytes` must not be used any more."""
        self._libc.munmap(*self._memory)


TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
START = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, TASK, ctypes.c_void_p)


class Threads(ctypes.Structure):
    """struct lrw_threads."""

    _fields_ = [("count", ctypes.c_int), ("start", START), ("context", ctypes.c_void_p)]


class Native:
    """The functions of a natively built network, and buffers for it: inputs, outputs, weights, workspace, each followed
    by GUARD_BYTES bytes with all bits set."""

    def __init__(self, artifacts: Artifacts, *inputs: Array) -> None:
        library, self.shapes = ctypes.CDLL(str(artifacts.shared)), [port.size for port in artifacts.outputs]
        self.outside, pointer = len(inputs) + len(self.shapes), ctypes.c_void_p

        def function(name: str, result: Any, *arguments: Any) -> Any:
            found = library[name]
            found.argtypes, found.restype = arguments, result
            return found

        def own(name: str) -> str:
            return abi.symbol(artifacts.name, name)

        self.version = function(abi.VERSION_SYMBOL, ctypes.c_uint32)
        self.space = function(own("workspace_bytes"), ctypes.c_size_t)
        self.check = function(own("check_weights"), ctypes.c_int, pointer, ctypes.c_size_t)
        self.run = function(own("run"), ctypes.c_int, *[pointer] * (self.outside + 3))
        self.begin = function(own("begin"), ctypes.c_int, *[pointer] * (self.outside + 2))
        self.step = function(own("step"), None, pointer, ctypes.c_int)
        self.sizes = (
            *(x.nbytes for x in inputs),
            *(4 * int(np.prod(shape)) for shape in self.shapes),
            artifacts.weights.stat().st_size,
            artifacts.workspace_bytes,
        )
        self.buffers = [_aligned(size + GUARD_BYTES) for size in self.sizes]
        weights = np.fromfile(artifacts.weights, np.uint8)
        for buffer, values in zip((*self.buffers[: len(inputs)], self.buffers[-2]), (*inputs, weights), strict=True):
            buffer[: values.nbytes] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self.addresses = [buffer.ctypes.data for buffer in self.buffers]

    @property
    def outputs(self) -> list[Array]:
        first = self.outside - len(self.shapes)
        held = zip(self.buffers[first:], self.sizes[first:], self.shapes, strict=False)
        return [buffer[:size].view(np.float32).reshape(shape) for buffer, size, shape in held]

    @property
    def output(self) -> Array:
        """That of a network that has one."""
        (y,) = self.outputs
        return y

    def forget(self) -> None:
        """Outputs and workspace as at first."""
        for buffer in (*self.buffers[self.outside - len(self.shapes) : self.outside], self.buffers[-1]):
            buffer[:] = 0xFF


def _aligned(size: int) -> Any:
    data = np.full(size + abi.ALIGNMENT, 0xFF, np.uint8)
    start = -data.ctypes.data % abi.ALIGNMENT
    return data[start : start + size]


@pytest.fixture
def native(built: Builder) -> Native:
    """Every operator, on this machine."""
    need(target=NATIVE)
    return Native(built("every", NATIVE), *case("every").inputs)
