"""The table of what the laws run on: every backend in every dtype it computes in. A new backend is one line."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
import torch

from lrw.backends import composed, reference
from lrw.geometry import Geometry

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Subject:
    """A backend's three products on arrays [N, D, H, W, C] of `dtype`; every result is checked finite first."""

    name: str
    module: object
    dtype: torch.dtype

    @property
    def eps(self) -> float:
        """Spacing of the arithmetic at 1."""
        return float(torch.finfo(self.dtype).eps)

    def cast(self, *arrays: Array) -> tuple[Array, ...]:
        """The arrays rounded to this dtype: what the backend is given, and what it is judged on."""
        return tuple(torch.as_tensor(a).to(self.dtype).numpy() for a in arrays)

    def forward(self, x: Array, u: Array, geometry: Geometry) -> Array:
        """Y in float64."""
        return self._call("forward", x, u, geometry)

    def input_grad(self, dy: Array, u: Array, geometry: Geometry, input_size: tuple[int, int, int]) -> Array:
        """dX in float64."""
        return self._call("input_grad", dy, u, geometry, input_size)

    def weight_grad(self, x: Array, dy: Array, geometry: Geometry) -> Array:
        """dU in float64."""
        return self._call("weight_grad", x, dy, geometry)

    def _call(self, name: str, a: Array, b: Array, *rest: object) -> Array:
        run: Callable[..., torch.Tensor] = getattr(self.module, name)
        result = run(*(torch.as_tensor(v).to(self.dtype) for v in (a, b)), *rest).numpy().astype(np.float64)
        assert np.isfinite(result).all(), f"{self.name}.{name}: values nobody wrote, or overflow"
        return result


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
