"""What Winograd layers compute on one batch, beside the same in float64; and where NaN and infinity come from."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from math import inf, isnan, nan
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from lrw import checks
from lrw.activations import compute_dtype
from lrw.backends import composed
from lrw.backends.epilogue import Epilogue
from lrw.layers import evaluating, winograd_layers
from lrw.nn import WinogradLayer
from lrw.typed import typed
from lrw_kernels.triton.precision import matmuls_are_plain, of_convolutions
from lrw_kernels.winograd import domain_error

TF32 = 2.0**-10  # the spacing of its numbers at 1


@dataclass(frozen=True)
class LayerCheck:
    """One Winograd layer: its largest error and the bound on that, both over its largest output.

    They are NaN where the output is not finite, or the input was not. `overflows` says that the output is not finite
    although the input was and what was to be computed is: float16 ends at 65,504.
    """

    name: str
    tile: str
    error: float
    bound: float
    input_finite: bool
    output_finite: bool
    overflows: bool

    @property
    def within(self) -> bool:
        """Whether the error is within the bound; not where they are NaN."""
        return self.error <= self.bound


@dataclass(frozen=True)
class NotFinite:
    """The first module, of any kind, whose output holds NaN or infinity, and whether it made it: its input was finite.

    Otherwise it came with the batch, or from code between modules.
    """

    name: str
    kind: str
    input_finite: bool
    overflows: bool


@dataclass(frozen=True)
class CheckReport:
    """What `check` found: Winograd layers in the order they were computed, the names of those that were not reached,
    the first module whose output is not finite, and whether the batch was finite."""

    layers: tuple[LayerCheck, ...]
    not_reached: tuple[str, ...]
    first_not_finite: NotFinite | None
    batch_finite: bool

    @property
    def ok(self) -> bool:
        """Whether everything is finite and every error within its bound."""
        return self.batch_finite and self.first_not_finite is None and all(layer.within for layer in self.layers)

    def __str__(self) -> str:
        rows = [("layer", "tile", "error", "bound")]
        rows += [(layer.name, layer.tile, f"{layer.error:.1e}", f"{layer.bound:.1e}") for layer in self.layers]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
        outside = [layer.name for layer in self.layers if layer.error > layer.bound]
        lines += [f"{name}: the error is larger than its bound" for name in outside]
        lines += [f"{name}: not reached" for name in self.not_reached]
        lines += [] if self.batch_finite else ["the batch holds NaN or infinity"]
        first = self.first_not_finite
        if first is not None:
            whence = "from a finite input" if first.input_finite else "its input had some already"
            overflow = ", because it overflows" if first.overflows else ""
            lines.append(f"first NaN or infinity: in the output of {first.name!r} ({first.kind}), {whence}{overflow}")
        return "\n".join(lines)


@typed
@torch.no_grad()
def check(net: nn.Module, batch: Any) -> CheckReport:
    """Run `net` once in eval mode on `batch`, one tensor or a tuple of arguments, and look at every Winograd layer.

    Each layer's output is held against the same layer, on the same input and its own U as stored, in float64 by the
    exact transforms; a layer that is computed several times reports its largest error. Rounding U itself to half
    precision is not in these numbers: `lrw.to_winograd` holds that against its rtol. Neither the network, its modes nor
    the batch change. Raises ValueError for a network without Winograd layers and for another batch; what the
    network itself raises passes through.
    """
    if not isinstance(batch, Tensor | tuple):
        raise ValueError(f"batch: a {type(batch).__name__}; accepted are a Tensor and a tuple of arguments for net")
    for leaf in tree_leaves(batch):
        if isinstance(leaf, Tensor):
            checks.check_numbers(leaf, "batch")
    look = _Look({layer: name for name, layer in winograd_layers(net).items()})
    given = batch if isinstance(batch, tuple) else (batch,)
    arguments = tree_map_only(Tensor, torch.clone, given)  # some networks write to them
    handles = []
    for name, module in net.named_modules():
        handles.append(module.register_forward_pre_hook(look.before, with_kwargs=True))
        handles.append(module.register_forward_hook(look.after(name), with_kwargs=True, prepend=True))
    try:
        with evaluating(net), _uncompiled():
            net(*arguments)
    finally:
        for handle in handles:
            handle.remove()
    reached = tuple(look.found.values())
    missing = tuple(name for name in look.layers.values() if name not in look.found)
    return CheckReport(reached, missing, look.first, _finite(batch))


@dataclass
class _Look:
    """Hooks around every module, and what they have seen."""

    layers: dict[WinogradLayer, str]
    found: dict[str, LayerCheck] = field(default_factory=dict)
    first: NotFinite | None = None
    inputs: list[bool] = field(default_factory=list)  # of the modules under way: whether theirs were finite

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Inputs are looked at first: some modules write over them."""
        self.inputs.append(_finite((args, kwargs)))

    def after(self, name: str) -> Any:
        """The hook behind the module called `name`."""

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            input_finite, finite = self.inputs.pop(), _finite(output)
            overflows = False
            if isinstance(module, WinogradLayer):
                one = _compared(self.layers[module], module, args[0] if args else kwargs["input"], output)
                overflows = one.overflows
                self.found[one.name] = max(self.found.get(one.name, one), one, key=_badness)
            if not finite and self.first is None:
                self.first = NotFinite(name, type(module).__name__, input_finite, overflows)

        return hook


def _badness(layer: LayerCheck) -> float:
    return inf if isnan(layer.error) else layer.error


def _compared(name: str, layer: WinogradLayer, x: Tensor, y: Tensor) -> LayerCheck:
    geometry = layer.geometry
    x, y = (t if t.dim() == 5 else t[None] for t in (x, y))  # a sample without a batch
    input_finite, output_finite = _finite(x), _finite(y)
    place = x.device if x.device.type in ("cpu", "cuda") else torch.device("cpu")  # others may have no float64
    inner, u = x.to(place, torch.float64).permute(0, 2, 3, 4, 1), layer.weights().to(place, torch.float64)
    bias = None if layer.bias is None else layer.bias.to(place, torch.float64)
    exact = composed.forward(inner, u, geometry, Epilogue(bias)).permute(0, 4, 1, 2, 3)
    overflows = input_finite and not output_finite and _finite(exact)
    error = bound = nan
    if input_finite and output_finite and y.numel():
        largest, norms = float(exact.abs().max()), u.norm(dim=1).amax(dim=1).cpu().numpy()
        off = (float(inner.abs().max()), layer.in_channels, _eps(layer, y))
        absolute = domain_error(geometry.tile, geometry.kept, norms, *off)
        absolute += torch.finfo(y.dtype).eps / 2 * largest  # the result's own rounding
        error, bound = (_share(e, largest) for e in (float((y.to(exact) - exact).abs().max()), absolute))
    return LayerCheck(name, geometry.tile.name, error, bound, input_finite, output_finite, overflows)


def _eps(layer: WinogradLayer, y: Tensor) -> float:
    """The spacing at 1 of the numbers that are multiplied: 16-bit or TF32 ones on a GPU, where torch says so."""
    dtype = compute_dtype(y.dtype)
    if y.is_cuda and dtype != torch.float64:
        kernels = layer.backend in ("auto", "triton")
        if kernels and of_convolutions(y.dtype) == "half":
            return float(torch.finfo(y.dtype).eps)
        if (of_convolutions(y.dtype) == "tf32") if kernels else not matmuls_are_plain():
            return TF32
    return float(torch.finfo(dtype).eps)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else (0.0 if part == 0 else inf)


def _finite(values: Any) -> bool:
    """Whether all floating tensors in there are."""
    tensors = [t for t in tree_leaves(values) if isinstance(t, Tensor) and t.is_floating_point()]
    return all(bool(t.isfinite().all()) for t in tensors)


def _uncompiled() -> AbstractContextManager[object]:
    """Without what torch.compile made, which would pass over hooks that are new; where it was never used, as it is."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
