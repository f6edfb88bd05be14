"""The table of backends: who computes the three products of a Winograd layer.

A backend is a module with four functions, `forward`, `input_grad`, `weight_grad` and `refusal` (see `Backend`); it may
have two more (see `Further`). One asked for by name never falls back: it computes or raises. `"auto"` picks by device
and dtype and `choose` says what and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from lrw.backends.blocks import block_by_block
from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.geometry import Geometry
from lrw_kernels.triton.precision import of_convolutions
from lrw_kernels.triton.speedups import expected
from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import Block
from lrw_kernels.winograd.tile import Triple

Prepared = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]  # x, U, bias, residual -> y


class Backend(Protocol):
    """Activations come as [N, D, H, W, C] of any strides and any floating dtype, and go in theirs or wider."""

    def forward(self, x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Tensor:
        """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout], finished by the epilogue."""

    def input_grad(self, dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
        """The gradient dX [N, D, H, W, Cin] of dY [N, D', H', W', Cout]; `input_size` is (D, H, W)."""

    def weight_grad(self, x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
        """The gradient dU [K, Cin, Cout] of x and dY, in float32 at least."""

    def refusal(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why this backend does not compute with tensors of `dtype` on `device`; None where it does."""


class Further(Protocol):
    """The functions a backend may have beside the four: both of these or neither."""

    def prepare(self, x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Prepared | None:
        """`forward` for tensors of these forms and this U as it is now, but on [N, C, D, H, W]; None where that would
        save nothing. It must not keep U alive."""

    def forward_blocks(
        self, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, geometry: Geometry, blocks: tuple[Block, ...]
    ) -> Tensor:
        """`forward` for blocks of output channels that keep positions of their own, among the geometry's, with weights
        of their own [K_i, Cin, channels_i], in one pass over x that holds a sample at least."""


@dataclass(frozen=True)
class Choice:
    """A backend's name and the reason it was taken."""

    name: str
    reason: str


_MODULES = {
    "reference": "lrw.backends.reference",
    "torch": "lrw.backends.composed",
    "cpu": "lrw.backends.cpu",
    "triton": "lrw.backends.triton",
}
_FASTEST = {"cpu": "cpu", "cuda": "triton"}  # by type of device
NAMES = ("auto", *_MODULES)


_CPU = torch.device("cpu")
FEWEST_CHANNELS = 16  # with fewer a GPU moves more than it multiplies, and Winograd moves most


def available(device: torch.device = _CPU, dtype: torch.dtype = torch.float32) -> tuple[str, ...]:
    """The backends that compute with tensors of `dtype` on `device`, by name."""
    return tuple(name for name in _MODULES if _module(name).refusal(device, dtype) is None)


def choose(
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    channels: tuple[int, int] | None = None,
    kernel_size: Triple = (3, 3, 3),
    *,
    training: bool = False,
) -> Choice:
    """What `backend="auto"` takes for tensors of `dtype` on `device`.

    With `channels` (Cin, Cout) and `kernel_size`, those of spatial weights whose tile is "auto" as well, that may be
    "cudnn", direct convolution, where it is faster on a GPU: layers in the Winograd domain have no such choice. With
    `training` that is said of forward and both gradients, with weights that are transformed each time.
    """
    if channels is not None and device.type == "cuda":
        direct = _module("triton").refusal(device, dtype) is None and _direct(dtype, channels, kernel_size, training)
        if direct:
            return direct
    name = _FASTEST.get(device.type)
    if name is None:
        return Choice("torch", f"the only path of this version on {device.type}: tensor operations on any device")
    refusal = _module(name).refusal(device, dtype)
    if refusal is not None:
        return Choice("torch", f"{name!r} {refusal}")
    return Choice(name, f"kernels of our own for {'this processor' if name == 'cpu' else 'this GPU'}")


def _direct(dtype: torch.dtype, channels: tuple[int, int], kernel_size: Triple, training: bool) -> Choice | None:
    """cuDNN, where the table of speed-ups has nothing to gain for layers like this, or knows none like it."""
    if kernel_size != (3, 3, 3) or min(channels) < FEWEST_CHANNELS:
        what = f"3x3x3 and {FEWEST_CHANNELS} channels"
        return Choice("cudnn", f"direct convolution: Winograd on this GPU is for {what} or more")
    precision = of_convolutions(dtype)
    row = expected("training" if training else "forward", precision, *channels)
    if row.speedup > 1:
        return None
    what = f"{'a training step' if training else 'a pass'} of {channels[0]} to {channels[1]} channels in {precision}"
    return Choice("cudnn", f"direct convolution: Winograd is {row.speedup:.2f} times as fast for {what} ({row.source})")


def backend(name: str, device: torch.device, dtype: torch.dtype = torch.float32) -> Backend:
    """The backend called `name`, ready for tensors of `dtype` on `device`.

    Raises ValueError for an unknown name, or where that backend refuses them.
    """
    if name == "auto":
        name = choose(device, dtype).name
    if name not in _MODULES:
        raise ValueError(f"backend: {shown(name)} is not one of {', '.join(NAMES)} in this version")
    module = _module(name)
    reason = module.refusal(device, dtype)
    if reason is not None:
        raise ValueError(f"backend: {name!r} {reason}")
    return module


def further(run: Backend) -> Further | None:
    """`run` as a backend with the further functions; None where it has only the four."""
    return cast(Further, run) if hasattr(run, "forward_blocks") else None


def forward_blocks(
    run: Backend,
    x: Tensor,
    weights: Sequence[Tensor],
    bias: Tensor | None,
    geometry: Geometry,
    blocks: tuple[Block, ...],
) -> Tensor:
    """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin], of one sample at least, and weights [K_i, Cin, channels_i] for
    blocks of output channels that keep positions of their own, among the geometry's: in one pass where `run` has one.
    """
    more = further(run)
    if more is not None:
        return more.forward_blocks(x, weights, bias, geometry, blocks)
    return block_by_block(run.forward, x, weights, bias, geometry, blocks)


def _module(name: str) -> Backend:
    return cast(Backend, import_module(_MODULES[name]))
