"""The plain Numba kernels behind the backend interface: CPU, single-threaded, for judging and for small work."""

import numpy as np
import torch
from torch import Tensor

from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.backends.precision import widened
from lrw.geometry import Geometry
from lrw_kernels import reference
from lrw_kernels.reference.conv import Array
from lrw_kernels.winograd.tile import Triple


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Numba's arrays live in host memory."""
    return None if device.type == "cpu" else f"computes on the cpu only, the tensors are on {device.type}"


def forward(x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]."""
    activations, weights = _arrays(x, u)
    y = reference.winograd_conv3d(activations, weights, *_layer(geometry))
    return epilogue.apply(torch.from_numpy(y))


def input_grad(dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]."""
    tile, padding, kept = _layer(geometry)
    cotangents, weights = _arrays(dy, u)
    return torch.from_numpy(reference.winograd_input_grad(cotangents, weights, tile, padding, input_size, kept))


def weight_grad(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
    """dU [K, Cin, Cout]."""
    activations, cotangents = _arrays(x, dy)
    return torch.from_numpy(reference.winograd_weight_grad(activations, cotangents, *_layer(geometry)))


def _layer(geometry: Geometry) -> tuple:  # type: ignore[type-arg]
    return geometry.tile, geometry.padding, geometry.kept


def _arrays(*tensors: Tensor) -> tuple[Array, ...]:
    return tuple(np.ascontiguousarray(tensor.detach().numpy()) for tensor in widened(*tensors))
