"""The table of what the laws run on: every backend in every dtype it computes in. A new backend is one line."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw.backends import composed, cpu, reference, triton
from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.geometry import Geometry
from lrw_kernels.codegen.machine import MACHINES, Machine, host
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd import Tile
from verify.strategies import Case, cases

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Subject:
    """A backend's three products on arrays [N, D, H, W, C] of `dtype`; every result is checked finite first."""

    name: str
    module: object
    dtype: torch.dtype
    tiles: st.SearchStrategy[Tile] | None = None  # where each tile costs a compile, a few that show everything
    channels: tuple[int, ...] = (1, 2, 3, 4)
    spacing: float | None = None  # of the arithmetic at 1, where that is not the dtype's
    device: str = "cpu"
    share: float = 1.0  # of the examples others are judged on, where each takes seconds

    @property
    def eps(self) -> float:
        """Spacing of the arithmetic at 1."""
        return float(torch.finfo(self.dtype).eps) if self.spacing is None else self.spacing

    def cast(self, *arrays: Array) -> tuple[Array, ...]:
        """The arrays rounded to this dtype: what the backend is given, and what it is judged on."""
        return tuple(_numbers(torch.as_tensor(a).to(self.dtype)) for a in arrays)

    def forward(self, x: Array, u: Array, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Array:
        """Y in float64."""
        return self._call("forward", x, u, geometry, epilogue)

    def input_grad(self, dy: Array, u: Array, geometry: Geometry, input_size: tuple[int, int, int]) -> Array:
        """dX in float64."""
        return self._call("input_grad", dy, u, geometry, input_size)

    def weight_grad(self, x: Array, dy: Array, geometry: Geometry) -> Array:
        """dU in float64."""
        return self._call("weight_grad", x, dy, geometry)

    def _call(self, name: str, a: Array, b: Array, *rest: object) -> Array:
        run: Callable[..., torch.Tensor] = getattr(self.module, name)
        epilogues = [_on(self.device, value) if isinstance(value, Epilogue) else value for value in rest]
        tensors = (torch.as_tensor(v).to(self.device, self.dtype) for v in (a, b))
        result = _numbers(run(*tensors, *epilogues).cpu()).astype(np.float64)
        assert np.isfinite(result).all(), f"{self.name}.{name}: values nobody wrote, or overflow"
        return result


def _numbers(tensor: torch.Tensor) -> Array:
    """As an array, of float32 where NumPy has no such dtype."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _on(device: str, epilogue: Epilogue) -> Epilogue:
    bias, residual = (None if t is None else t.to(device) for t in epilogue[:2])
    return Epilogue(bias, residual, epilogue.relu)


_one_sample_each = patch.object(composed, "CACHED_VALUES", 1)
IN_PARTS = SimpleNamespace(
    forward=_one_sample_each(composed.forward),
    input_grad=_one_sample_each(composed.input_grad),
    weight_grad=_one_sample_each(composed.weight_grad),
)

SUBJECTS = {
    f"{name}-{str(dtype).removeprefix('torch.')}": Subject(name, module, dtype)
    for name, module in (("reference", reference), ("torch", composed))
    for dtype in (torch.float64, torch.float32)
} | {"torch-float64-in-parts": Subject("torch in parts", IN_PARTS, torch.float64)}


def _cpu(machine: Machine, dtype: torch.dtype) -> dict[str, Subject]:
    """The vector kernels of one machine configuration, with channels on both sides of whole vectors."""
    products = {name: partial(getattr(cpu, name), machine=machine) for name in ("forward", "input_grad", "weight_grad")}
    lanes = machine.lanes(cpu.KINDS[dtype])
    channels = (1, 3, lanes, lanes + 1, 2 * lanes, 3 * lanes + 2)
    name = f"cpu-{machine.name}-{str(dtype).removeprefix('torch.')}"
    return {name: Subject(name, SimpleNamespace(**products), dtype, st.sampled_from(FEW_TILES), channels)}


# Asymmetric, one tap or one output on an axis, even taps, points without pairs, large, with origins: and the usual two.
FEW_TILES = [
    Tile.parse(text)
    for text in (
        "F(2x2x2,3x3x3)",
        "F(4x4x4,3x3x3)",
        "F(2x4x3,3x3x3)@1,2,0",
        "F(1x4x2,1x3x5)@0,3,1",
        "F(4x1x1,3x1x3)",
        "F(3x1x6,2x4x3)@2,0,5[0 3/2 -3/4;;0 1 -1 1/2 -1/2 2 1/3]",
        "F(1x1x1,3x3x3)",
    )
]
for machine in MACHINES.values():
    SUBJECTS |= _cpu(machine, torch.float32)
SUBJECTS |= _cpu(host(), torch.float64)

# Half precision is rounded to in the sums of V, three behind each other where the transform only adds, and where values
# are stored: M, the result, operands that were no such numbers. The rest is float32: spread over the roundings that
# bounds count, at least 18 in any tile, that is two thirds of the spacing.
GPU_ROUNDINGS = (7 / 18) ** 0.5
GPU_TILES = [
    Tile.parse(text)
    for text in (
        "F(2x2x2,3x3x3)",
        "F(1x2x2,1x3x3)",
        "F(2x4x3,3x3x3)@1,2,0",
        "F(1x4x2,1x3x5)@0,3,1",
        "F(2x1x4,3x1x3)",
        "F(1x1x1,3x3x3)",
    )
]


def _gpu(dtype: torch.dtype, precision: Precision, *, in_parts: bool = False) -> dict[str, Subject]:
    """The GPU kernels with products of that precision, on a GPU or in Triton's interpreter; none without either.

    The interpreter computes float16 as bfloat16, by the same code: there one of both is enough.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    interpreted = device.type == "cpu"
    if triton.refusal(device, dtype) is not None or (interpreted and dtype == torch.float16):
        return {}
    from lrw_kernels.triton.conv import Layer

    def layer(geometry: Geometry, _: object) -> Layer:
        plain = Layer(str(geometry.tile), geometry.padding, geometry.positions, precision)
        return replace(plain, workspace=1 << 14, fuse=False) if in_parts else plain

    replaced = patch.object(triton, "_layer", layer)
    products = {name: replaced(getattr(triton, name)) for name in ("forward", "input_grad", "weight_grad")}
    eps = 2.0**-10 if precision == "tf32" else float(torch.finfo(dtype).eps)
    eps *= GPU_ROUNDINGS if precision == "half" else 1
    words = ["triton", precision if precision == "tf32" else str(dtype).removeprefix("torch.")] + [
        "in-parts"
    ] * in_parts
    name, tiles, share = "-".join(words), st.sampled_from(GPU_TILES), 0.1 if interpreted else 1.0
    module = SimpleNamespace(**products)
    return {name: Subject(name, module, dtype, tiles, (1, 3, 16, 20), eps, device.type, share)}


SUBJECTS |= _gpu(torch.float32, "ieee") | _gpu(torch.float32, "tf32") | _gpu(torch.float32, "ieee", in_parts=True)
SUBJECTS |= _gpu(torch.bfloat16, "half") | _gpu(torch.float16, "half")


def on_every_backend(*, dense: bool = False) -> Callable[[Callable[[Subject, Case], None]], Callable[..., None]]:
    """A law as a test of every subject, each with cases that suit it."""

    def decorate(law: Callable[[Subject, Case], None]) -> Callable[..., None]:
        @pytest.mark.parametrize("subject", SUBJECTS.values(), ids=SUBJECTS)
        def test(subject: Subject) -> None:
            @settings(max_examples=ceil(subject.share * settings.default.max_examples))
            @given(cases(dense=dense, tiles=subject.tiles, channels=subject.channels))
            def holds(case: Case) -> None:
                law(subject, case)

            holds()

        test.__name__, test.__qualname__, test.__doc__ = law.__name__, law.__qualname__, law.__doc__
        test.__module__ = law.__module__
        return test

    return decorate
