"""What the GPU kernels are told of a layer beside its tensors."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from lrw_kernels.triton import config
from lrw_kernels.triton.precision import Precision
from lrw_kernels.winograd.tile import Triple


@dataclass(frozen=True)
class Layer:
    """A tile (its text), zero padding and kept positions; `precision` of products, `workspace` in bytes, and whether
    products and inverse transform may be one kernel."""

    tile: str
    padding: Triple
    positions: tuple[int, ...]
    precision: Precision
    workspace: int = config.WORKSPACE
    fuse: bool = True


class Epilogue(NamedTuple):
    """bias [Cout], residual like the output, and whether negative values become zero."""

    bias: Tensor | None = None
    residual: Tensor | None = None
    relu: bool = False

    def packed(self) -> "Epilogue":
        """With contiguous channels."""
        bias = None if self.bias is None else self.bias.contiguous()
        return Epilogue(bias, None if self.residual is None else channels_last(self.residual), self.relu)


PLAIN = Epilogue()


def channels_last(x: Tensor) -> Tensor:
    """x [..., C] with contiguous channels."""
    return x if x.stride(-1) == 1 else x.contiguous()
