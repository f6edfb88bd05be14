"""What all Winograd layers share: channels, geometry, bias, backend and the forward pass."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lrw import checks
from lrw.followed import as_text, content, without_modes
from lrw.geometry import Geometry
from lrw.ops import domain_conv3d

Observer = Callable[["WinogradLayer", Tensor], None]


class WinogradLayer(nn.Module):
    """What all Winograd layers share: channels, geometry, bias, backend and the forward pass.

    `observer`, where set, is called with each forward pass's transformed weights [K, Cin, Cout] while gradients are
    recorded; a pruner watches through it. It is neither copied nor pickled with the module.

    What is kept stands in a buffer, so that it is saved, averaged and sent with the weights. The geometry follows it,
    whoever wrote to it (on a GPU whoever torch counts). What torch.compile or torch.export made of the layer raises
    RuntimeError where the buffer holds other columns by then; on a GPU, whose memory is not read, nobody is told.
    """

    kept_in: ClassVar[str]  # the buffer's name
    _followed: bytes | None = None  # what it held when the geometry was taken from it
    _followed_text = ""  # the same in short, for operators

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        geometry: Geometry,
        *,
        bias: bool,
        backend: str = "auto",
        **tensor: Any,
    ) -> None:
        super().__init__()
        checks.check_count(in_channels, "in_channels")
        checks.check_count(out_channels, "out_channels")
        self.in_channels, self.out_channels = in_channels, out_channels
        self.geometry, self.backend = geometry, backend
        self.observer: Observer | None = None
        self.bias = nn.Parameter(torch.zeros(out_channels, **tensor)) if bias else None

    @property
    def geometry(self) -> Geometry:
        """Tile, padding and kept positions."""
        self.follow()
        return self._geometry

    @geometry.setter
    def geometry(self, value: Geometry) -> None:
        self._set_geometry(value)

    def _set_geometry(self, value: Geometry) -> None:
        self._geometry = value
        self._layer = value.arguments

    def take_kept(self) -> None:
        """Take the kept positions from the buffer they stand in. Raises ValueError where it holds none."""
        raise NotImplementedError(f"{type(self).__name__} defines no take_kept()")

    def follow(self) -> None:
        """`take_kept`, if the buffer is not what it was the last time."""
        buffer = self._buffers.get(self.kept_in)
        if buffer is None or torch.compiler.is_compiling():
            return
        now = content(buffer)
        if now is not None and now != self._followed:
            with without_modes():
                self.take_kept()
            self._followed, self._followed_text = now, as_text(now)

    def _checked_bias(self, like: Tensor) -> Tensor | None:
        """The bias; where a function is made of this pass, one that asks whether the kept columns still are these."""
        buffer = self._buffers.get(self.kept_in)
        if not torch.compiler.is_compiling() or self._followed is None or buffer is None or not buffer.is_cpu:
            return self.bias
        bias = like.new_zeros(self.out_channels) if self.bias is None else self.bias
        return torch.ops.lrw.while_kept(bias, buffer, self._followed_text)

    def weights(self) -> Tensor:
        """U [K, Cin, Cout] of the kept columns, as they are now."""
        raise NotImplementedError(f"{type(self).__name__} defines no weights()")

    def forward(self, input: Tensor) -> Tensor:
        """[N, Cin, D, H, W] -> [N, Cout, D', H', W'], or both without N."""
        if input.dim() == 4:
            return self.forward(input[None])[0]
        u = self.weights()
        if self.observer is not None and u.requires_grad:
            u = u.view_as(u)  # a tensor of this pass alone: hooks on a parameter itself would outlive it
            self.observer(self, u)
        return domain_conv3d(input, u, self._checked_bias(u), self._layer, self.backend)

    @property
    def trains_weights(self) -> bool:
        """Whether anything its weights are made of is trained."""
        return any(p.requires_grad for p in self.parameters() if p is not self.bias)

    def _take_bias(self, other: nn.Module) -> Self:
        """Copy `other`'s bias, whether it is trained, and its mode; returns self."""
        if self.bias is not None and isinstance(other.bias, Tensor):
            with torch.no_grad():
                self.bias.copy_(other.bias)
            self.bias.requires_grad_(other.bias.requires_grad)
        return self.train(other.training)

    def extra_repr(self) -> str:
        """Shown by print(module)."""
        kept = f"{self.geometry.columns}/{self.geometry.tile.positions} columns"
        channels = f"{self.in_channels}, {self.out_channels}"
        rectified = ", Winograd-ReLU" if self.geometry.rectified else ""
        return f"{channels}, {self.geometry.tile.name}, padding={self.geometry.padding}, {kept}{rectified}"

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "observer": None}


class MovedReLU(nn.Identity):
    """Where a ReLU was that a Winograd-ReLU layer computes now (`lrw.rectify`)."""
