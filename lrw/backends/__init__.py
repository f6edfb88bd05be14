"""The table of backends: who computes the three products of a Winograd layer.

A backend is a module with `forward`, `input_grad`, `weight_grad` and `refusal` (see `Backend`). One asked for by name
never falls back: it computes or raises. `"auto"` picks by device and dtype and `choose` says what and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from lrw.backends.epilogue import PLAIN, Epilogue
from lrw.geometry import Geometry
from lrw_kernels.winograd import Block
from lrw_kernels.winograd.tile import Triple

Prepared = Callable[[Tensor, Tensor, Tensor | None, Tensor | None], Tensor]  # x, U, bias, residual -> y


class Backend(Protocol):
    """Activations come as [N, D, H, W, C] of any strides and any floating dtype, and go in theirs or wider."""

    def forward(self, x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Tensor:
        """Y [N, D', H', W', Cout] of x [N, D, H, W, Cin] and U [K, Cin, Cout], finished by the epilogue."""

    def prepare(self, x: Tensor, u: Tensor, geometry: Geometry, epilogue: Epilogue = PLAIN) -> Prepared | None:
        """`forward` for tensors of these forms and this U as it is now, but on [N, C, D, H, W]; None where that would
        save nothing. It must not keep U alive."""

    def forward_blocks(
        self, x: Tensor, weights: Sequence[Tensor], bias: Tensor | None, geometry: Geometry, blocks: tuple[Block, ...]
    ) -> Tensor | None:
        """`forward` for blocks of output channels that keep positions of their own, among the geometry's, with weights
        of their own [K_i, Cin, channels_i]; None where that is no better than block by block."""

    def input_grad(self, dy: Tensor, u: Tensor, geometry: Geometry, input_size: Triple) -> Tensor:
        """dX [N, D, H, W, Cin]."""

    def weight_grad(self, x: Tensor, dy: Tensor, geometry: Geometry) -> Tensor:
        """dU [K, Cin, Cout], in float32 at least."""

    def refusal(self, device: torch.device) -> str | None:
        """Why this backend does not compute on `device`; None where it does."""


@dataclass(frozen=True)
class Choice:
    """A backend's name and the reason it was taken."""

    name: str
    reason: str


_MODULES = {"reference": "lrw.backends.reference", "torch": "lrw.backends.composed", "cpu": "lrw.backends.cpu"}
_LATER = {"triton": "kernels for NVIDIA GPUs"}  # named, so that nobody reuses them
NAMES = ("auto", *_MODULES)


def available() -> tuple[str, ...]:
    """The backends of this version, by name."""
    return tuple(_MODULES)


def choose(device: torch.device) -> Choice:
    """What `backend="auto"` takes for tensors on `device`."""
    if device.type != "cpu":
        return Choice("torch", f"the only path of this version on {device.type}: tensor operations on any device")
    refusal = _module("cpu").refusal(device)
    if refusal is not None:
        return Choice("torch", f"'cpu' {refusal}")
    return Choice("cpu", "vector kernels, the fastest on this processor")


def backend(name: str, device: torch.device) -> Backend:
    """The backend called `name`, ready for `device`. Raises ValueError for an unknown name or a refused device."""
    if name == "auto":
        name = choose(device).name
    if name in _LATER:
        what = f"{name!r} ({_LATER[name]})"
        raise ValueError(f"backend: {what} comes in a later version; accepted are {', '.join(NAMES)}")
    if name not in _MODULES:
        raise ValueError(f"backend: {name!r} is not one of {', '.join(NAMES)} in this version")
    module = _module(name)
    reason = module.refusal(device)
    if reason is not None:
        raise ValueError(f"backend: {name!r} {reason}")
    return module


def _module(name: str) -> Backend:
    return cast(Backend, import_module(_MODULES[name]))
