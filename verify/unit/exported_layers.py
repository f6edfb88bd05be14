"""Layers exported once for all tests, what the reference makes of them, and the tools to run them with."""

import ctypes
import os
import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrw_kernels import reference
from lrw_kernels.aarch64.build import Artifacts, build_layer
from lrw_kernels.aarch64.emulate import aligned_buffer, missing_tools
from lrw_kernels.aarch64.spec import LayerSpec
from lrw_kernels.winograd import Tile

NATIVE, ARM, ANDROID = "x86_64-linux-gnu", "aarch64-linux-gnu", "aarch64-linux-android24"
BASE = LayerSpec("layer", Tile.of(2), (1, 1, 1), (4, 4, 4), 2, 3, tuple(range(64)), True)


def some_columns(count: int, tile: Tile) -> tuple[int, ...]:
    """`count` random positions of `tile`, sorted."""
    return tuple(sorted(np.random.default_rng(count).choice(tile.positions, count, replace=False).tolist()))


def _specs() -> list[LayerSpec]:
    skew, flat = Tile.of((1, 2, 4), (2, 3, 3), origin=(0, 1, 3)), Tile.of((1, 2, 2), (1, 3, 3))
    return [
        LayerSpec("dense", Tile.of(2), (1, 1, 1), (5, 6, 7), 8, 8, tuple(range(64)), False),
        LayerSpec("pruned", Tile.of(4), (1, 1, 1), (8, 8, 8), 4, 6, some_columns(54, Tile.of(4)), True),
        LayerSpec("skew_odd", skew, (0, 0, 0), (4, 7, 9), 3, 5, some_columns(20, skew), True),
        LayerSpec("batch2", flat, (0, 2, 1), (3, 5, 4), 5, 2, some_columns(7, flat), False, 2),
    ]


SPECS = {spec.name: spec for spec in _specs()}
RUNS = [(NATIVE, "host"), (ARM, "cortex-a53"), (ARM, "cortex-a76"), (ANDROID, "cortex-a53")]
EVERY_RUN = [(n, t, c) for n in SPECS for t, c in RUNS if t != ANDROID or n == "pruned"]


@dataclass(frozen=True)
class Case:
    """A layer with values and what the reference makes of them."""

    spec: LayerSpec
    x: Any
    u: Any
    bias: Any

    @staticmethod
    def of(spec: LayerSpec) -> "Case":
        draw = np.random.default_rng(7).standard_normal
        x, u, bias = (draw(s).astype(np.float32) for s in (spec.input_shape, spec.weight_shape, spec.cout))
        return Case(spec, x, u, bias if spec.bias else None)

    def expected(self, dtype: Any) -> Any:
        """The reference in `dtype` on the layer's float32 values."""
        spec = self.spec
        x, u = self.x.astype(dtype), self.u.astype(dtype)
        y = reference.winograd_conv3d(x, u, spec.tile, spec.padding, spec.kept)
        return y if self.bias is None else y + self.bias.astype(dtype)


class Builder:
    """Layers built once for all tests, two at a time."""

    def __init__(self, folder: Path, pool: ThreadPoolExecutor) -> None:
        self.cases = {name: Case.of(spec) for name, spec in SPECS.items()}
        wanted = dict.fromkeys((name, target) for name, target, _ in EVERY_RUN)
        self._jobs: dict[tuple[str, str], Future[Artifacts]] = {
            (name, target): pool.submit(self._build, name, folder / target, target) for name, target in wanted
        }

    def _build(self, name: str, folder: Path, target: str) -> Artifacts:
        case = self.cases[name]
        return build_layer(case.spec, case.u, case.bias, folder, target=target)

    def __call__(self, name: str, target: str) -> Artifacts:
        return self._jobs[name, target].result()


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """All layers, done before any test begins: some tests change PATH or what lowering gives."""
    with ThreadPoolExecutor(2) as pool:
        return Builder(tmp_path_factory.mktemp("layers"), pool)


def need(*tools: str, target: str | None = None) -> None:
    """Skip with the reason when something is missing; fail where LRW_REQUIRE_QEMU says it must be there."""
    if target == NATIVE:
        tools += ("gcc",)
    missing = missing_tools(target) if target else []
    missing += [tool for tool in tools if shutil.which(tool) is None]
    if missing and os.environ.get("LRW_REQUIRE_QEMU") == "1":
        pytest.fail(f"LRW_REQUIRE_QEMU=1, but missing: {', '.join(missing)}")
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


def call(*command: object, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    texts = [str(part) for part in command]
    done = subprocess.run(texts, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Native:
    """The run function of a natively built layer, with its buffers, each followed by 64 bytes of canary."""

    def __init__(self, artifacts: Artifacts, x: Any) -> None:
        spec = artifacts.spec
        library = ctypes.CDLL(str(artifacts.library))
        self.run = library[f"lrw_{spec.name}_run"]
        self.run.argtypes, self.run.restype = [ctypes.c_void_p] * 4, ctypes.c_int
        self.space = library[f"lrw_{spec.name}_workspace_bytes"]
        self.space.restype = ctypes.c_size_t
        self.version = library.lrw_abi_version
        self.version.restype = ctypes.c_uint32
        sizes = (x.nbytes, 4 * int(np.prod(spec.output_shape)), spec.weights_bytes, spec.workspace_bytes)
        self.buffers = [aligned_buffer(size + 64) for size in sizes]
        self.sizes = sizes
        self.buffers[0][: x.nbytes] = np.ascontiguousarray(x).reshape(-1).view(np.uint8)
        self.buffers[2][: spec.weights_bytes] = np.fromfile(artifacts.weights, np.uint8)
        self.addresses = [buffer.ctypes.data for buffer in self.buffers]
        self.shape = spec.output_shape

    @property
    def output(self) -> Any:
        return self.buffers[1][: self.sizes[1]].view(np.float32).reshape(self.shape)


@pytest.fixture
def native(built: Builder) -> Native:
    need(target=NATIVE)
    return Native(built("pruned", NATIVE), built.cases["pruned"].x)
