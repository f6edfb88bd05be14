"""The GPU kernels behind the backend interface: dtypes, precision of products, who may be asked.

float32 is multiplied as torch's own convolutions would (`torch.backends.cudnn.conv.fp32_precision`: TF32 unless that
was changed), half precision with sums in float32. Activations are channels last; others are copied.
"""

from contextlib import suppress
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

import numpy
import torch
from torch import Tensor

from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.geometry import Geometry
from lrw_kernels.triton.precision import of_convolutions
from lrw_kernels.winograd.tile import Triple

if TYPE_CHECKING:
    from lrw_kernels.triton import conv

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST_TRITON, OLDEST_CAPABILITY = (3, 6), (8, 0)
NO_LONGER = (2, 4)  # the first NumPy that the interpreter of Triton 3.6 does not know
DISTRIBUTIONS = ("triton", "pytorch-triton")  # torch's nightly builds bring a Triton under a name of its own


def refusal(device: torch.device, dtype: torch.dtype) -> str | None:
    """Triton, an NVIDIA GPU from Ampere on (or Triton's interpreter), and dtypes that tensor cores sum in float32."""
    missing = _missing_triton()
    if missing is not None:
        return missing
    if dtype not in DTYPES:
        return f"computes float32, bfloat16 and float16; the tensors are {str(dtype).removeprefix('torch.')}"
    if _interpreting() and (device.type == "cpu" or _broken_interpreter()):
        return _broken_interpreter()
    if device.type != "cuda" or torch.version.hip is not None:
        where = "an AMD GPU" if torch.version.hip is not None and device.type == "cuda" else device.type
        return f"computes on NVIDIA GPUs only; the tensors are on {where}"
    if not torch.cuda.is_available():
        return "finds no NVIDIA GPU"
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST_CAPABILITY:
        return "needs compute capability 8.0 or later, this GPU has {}.{}".format(*capability)
    return None


def forward(x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout]."""
    from lrw_kernels.triton import conv

    finish = conv.Epilogue(epilogue.bias, epilogue.residual, epilogue.relu)
    return conv.forward(x, u.to(x.dtype), _layer(geometry, x), finish)


def input_grad(dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
    """dX [N, D, H, W, Cin]."""
    from lrw_kernels.triton import conv

    return conv.input_grad(dy, u.to(dy.dtype), _layer(geometry, dy), input_size)


def weight_grad(x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
    """dU [K, Cin, Cout] in float32."""
    from lrw_kernels.triton import conv

    return conv.weight_grad(x, dy.to(x.dtype), _layer(geometry, x))


def _layer(geometry: Geometry, x: Tensor) -> "conv.Layer":
    from lrw_kernels.triton import conv

    return conv.Layer(str(geometry.tile), geometry.padding, geometry.positions, of_convolutions(x.dtype))


@lru_cache(maxsize=1)
def _missing_triton() -> str | None:
    found = _installed_triton()
    if found is None:
        return "needs the package triton (pip install 'lrw[gpu]')"
    if _numbers(found) < OLDEST_TRITON:
        return f"needs triton 3.6 or later; installed is {found}"
    return None


def _installed_triton() -> str | None:
    for name in DISTRIBUTIONS:
        with suppress(PackageNotFoundError):
            return version(name)
    return None


def _broken_interpreter() -> str | None:
    if (_installed_triton() or "").startswith("3.6.") and _numbers(numpy.__version__) >= NO_LONGER:
        return f"has an interpreter that knows no NumPy {numpy.__version__} in triton 3.6; it wants numpy before 2.4"
    return None


def _numbers(found: str) -> tuple[int, ...]:
    """(3, 6) of 3.6.0+git."""
    return tuple(int(n) for n in found.split("+")[0].split(".")[:2])


@lru_cache(maxsize=1)
def _interpreting() -> bool:
    import triton

    return bool(triton.knobs.runtime.interpret)
