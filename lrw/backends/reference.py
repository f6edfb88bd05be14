"""The plain Numba kernels behind the backend interface: CPU, single-threaded, for judging and for small work."""

import numpy as np
import torch
from torch import Tensor

from lrw.geometry import Geometry
from lrw_kernels import reference
from lrw_kernels.reference.conv import Array
from lrw_kernels.winograd.tile import Triple


def refusal(device: torch.device) -> str | None:
    """Numba's arrays live in host memory."""
    return None if device.type == "cpu" else f"computes on the cpu only, the tensors are on {device.type}"


def forward(x: Tensor, u: Tensor, geometry: Geometry) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]."""
    return torch.from_numpy(reference.winograd_conv3d(_array(x), _array(u), *_layer(geometry)))


def input_grad(dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]."""
    tile, padding, kept = _layer(geometry)
    return torch.from_numpy(reference.winograd_input_grad(_array(dy), _array(u), tile, padding, input_size, kept))


def weight_grad(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
    """dU [K, Cin, Cout]."""
    return torch.from_numpy(reference.winograd_weight_grad(_array(x), _array(dy), *_layer(geometry)))


def _layer(geometry: Geometry) -> tuple:  # type: ignore[type-arg]
    return geometry.tile, geometry.padding, geometry.kept


def _array(tensor: Tensor) -> Array:
    return np.ascontiguousarray(tensor.detach().numpy())
