"""Winograd convolution on torch tensors: check, cast, dispatch. The operators themselves are in `lrw.operators`."""

from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from operator import index
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from lrw import backends, checks
from lrw.activations import autocasts, compute_dtype, memory_format, without_autocast
from lrw.dispatch import Call, again, convolve, has_tangent
from lrw.geometry import Geometry, Layer
from lrw.unchanged import Derived, trust_tensor
from lrw_kernels.choice.estimate import cheapest_tile
from lrw_kernels.triton.precision import of_convolutions
from lrw_kernels.untrusted import shown
from lrw_kernels.winograd import Tile, kept_positions
from lrw_kernels.winograd.tile import Triple, triple

Function = TypeVar("Function", bound=Callable[..., Any])
TileLike = int | Sequence[int] | Tile
_TRANSFORMED: Derived[Tensor] = Derived()


def winograd_conv3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    *,
    tile: TileLike | str = "auto",
    rtol: float = 1e-4,
    residual: Tensor | None = None,
    relu: bool = False,
    backend: str = "auto",
) -> Tensor:
    """`torch.nn.functional.conv3d` computed in the Winograd domain, differentiable to any order.

    input [N, Cin, D, H, W] or [Cin, D, H, W] (contiguous or channels_last_3d, the output follows), weight
    [Cout, Cin, rd, rh, rw] with 1 to 7 taps per axis, bias [Cout]. `tile` is outputs per axis, or "auto": the
    cheapest whose error bound (largest error over largest output) stays within `rtol`. A `residual` of the output's
    shape and a ReLU follow the bias; without gradients all three cost no pass of their own. float32 and float64;
    bfloat16 and float16 are computed in float32 on a CPU, multiplied as they are on a GPU. There float32 is as precise
    as torch's own convolutions (TF32 by default), "auto" is a tile of 2 outputs unless it is float32 throughout, and
    where both tile and backend are "auto", layers that cuDNN computes faster directly go to it (`lrw.backends.choose`
    says which, and why; with `training=True` where x or weight wants a gradient). Raises ValueError naming the argument
    for shapes, dtypes, devices and for stride, dilation and groups other than 1. NaN and infinity in an
    input may come out as NaN in all outputs of the tiles that read them.
    Source: Lavin & Gray, arXiv 1509.09308, nested over three axes.
    """
    if isinstance(input, Tensor) and input.dim() == 4:
        single = residual[None] if isinstance(residual, Tensor) else residual
        more: dict[str, Any] = {"tile": tile, "rtol": rtol, "residual": single, "relu": relu, "backend": backend}
        return winograd_conv3d(input[None], weight, bias, stride, padding, dilation, groups, **more)[0]
    how = (tile, rtol, stride, padding, dilation, groups, relu, backend)
    call = Call(input, weight, bias, residual, None, how)
    y = again(call)
    if y is not None:
        return y
    checks.check_weight(weight)
    for value, name in ((stride, "stride"), (dilation, "dilation"), (groups, "groups")):
        checks.check_unit(value, name)
    checks.check_activation(input, weight.shape[1])
    checks.check_choices(relu, backend)
    kernel_size = _sizes(weight)
    pads = padding_sizes(padding, kernel_size)
    if (
        isinstance(tile, str)
        and backend == tile == "auto"
        and input.is_cuda
        and _is_direct(input, weight, bias, residual)
    ):
        y = F.conv3d(input, weight, bias, padding=pads)
        y = y if residual is None else y + residual.to(y.dtype)
        return (torch.relu(y) if relu else y).contiguous(memory_format=memory_format(input))
    layer = _layer(_spatial_tile(tile, kernel_size, input, weight, pads, rtol), kernel_size, pads, None)
    return convolve(call, _spatial_weights(weight, layer), layer, relu=relu, backend=backend, name="weight")


def winograd_domain_conv3d(
    input: Tensor,
    u: Tensor,
    bias: Tensor | None = None,
    *,
    tile: TileLike,
    kernel_size: int | Sequence[int] = 3,
    padding: int | str | Sequence[int] = 0,
    kept: Sequence[int] | Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    backend: str = "auto",
) -> Tensor:
    """A Winograd layer: input [N, Cin, D, H, W] with free weights u [K, Cin, Cout] at the `kept` positions.

    u need not come from spatial weights; then the layer is no convolution, and its output depends on where the tile
    grid starts (`tile.origin`). `kept` lists K of the T positions in rising order, None stands for all. Differentiable
    in input, u, bias and residual, which is added before a ReLU where `relu` asks for one. Raises ValueError naming the
    argument.
    """
    checks.check_choices(relu, backend)
    sizes = triple(kernel_size, "kernel_size")
    layer = _layer(tile, sizes, padding_sizes(padding, sizes), _positions(kept))
    return domain_conv3d(input, u, bias, layer, backend, residual=residual, relu=relu)


def domain_conv3d(
    input: Tensor,
    u: Tensor,
    bias: Tensor | None,
    layer: Layer,
    backend: str = "auto",
    *,
    residual: Tensor | None = None,
    relu: bool = False,
) -> Tensor:
    """`winograd_domain_conv3d` for a ready layer: what the modules call."""
    call = Call(input, u, bias, residual, layer, (relu, backend))
    y = again(call)
    if y is not None:
        return y
    checks.check_weights(u, layer.columns, "u")
    if not isinstance(input, Tensor):
        checks.check_activation(input, u.shape[1])
    return convolve(call, u, layer, relu=relu, backend=backend, name="u")


def transform_weight(weight: Tensor, tile: TileLike, kept: Sequence[int] | None = None) -> Tensor:
    """U [K, Cin, Cout] of spatial weight [Cout, Cin, rd, rh, rw]; differentiable. float16 and bfloat16 give float32.

    U_p = (G_d x G_h x G_w) w, one GEMM with the Kronecker product of the three exact tables.
    """
    checks.check_weight(weight)
    return _transform(weight, _layer(tile, _sizes(weight), (0, 0, 0), _positions(kept)))


def _transform(weight: Tensor, layer: Layer) -> Tensor:
    table = _filter_table(layer.tile, layer.kept, compute_dtype(weight.dtype), weight.device)
    taps = weight.to(table.dtype).permute(2, 3, 4, 1, 0).reshape(table.shape[1], -1)  # [r^3, Cin * Cout]
    with without_autocast(weight.device):  # U in half precision would cost more than it saves
        return (table @ taps).view(-1, weight.shape[1], weight.shape[0])


def _spatial_weights(weight: Tensor, layer: Layer) -> Tensor:
    """U of constant weights is kept; one that is trained, traced or captured in a CUDA graph is formed anew."""
    if torch.compiler.is_compiling() or (torch.is_grad_enabled() and weight.requires_grad) or has_tangent([weight]):
        return _transform(weight, layer)
    if weight.is_cuda and torch.cuda.is_current_stream_capturing():
        return _transform(weight, layer)  # a graph must see the weights as they will be, and keeps its memory to itself

    def make() -> Tensor:
        with torch.inference_mode(False), torch.no_grad():  # a tensor that can also serve a later training step
            u = _transform(weight.detach(), layer)
        trust_tensor(u)  # nobody else has it
        return u

    # Another stream would have to wait for what was formed on this one: each has its own.
    stream = torch.cuda.current_stream(weight.device).cuda_stream if weight.is_cuda else None
    kept = _TRANSFORMED.get(weight, (layer.tile, stream), make)
    return _transform(weight, layer) if kept is None else kept


def _spatial_tile(
    tile: TileLike | str, kernel_size: Triple, x: Tensor, weight: Tensor, pads: Triple, rtol: float
) -> TileLike:
    if not isinstance(tile, str):
        return tile
    if tile != "auto":
        raise ValueError(f"tile: {shown(tile)}; accepted are 'auto', an int, three ints or a Tile")
    d, h, w = (int(n) + 2 * p - r + 1 for n, p, r in zip(x.shape[2:], pads, kernel_size, strict=True))
    checks.check_output_size((d, h, w), x.shape[2:])
    eps = torch.finfo(compute_dtype(x.dtype)).eps
    if x.is_cuda and _is_coarse(_autocast_dtype(x)):  # bears no larger ones, and none on more than 3 taps
        d, h, w = (2 if 1 < taps <= 3 else 1 for taps in kernel_size)
        return d, h, w
    return _cheapest(kernel_size, int(weight.shape[1]), int(weight.shape[0]), (d, h, w), float(rtol), eps)


# Exact rationals and tables are worked out at trace time: to torch.compile these four are constants. It looks through
# lru_cache and would trace the wrapped function, so the caches sit one call further down.


def _traced_as_constant(function: Function) -> Function:
    """`torch.compiler.assume_constant_result`, without its import of all of torch.compile (a second)."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@_traced_as_constant
def _cheapest(kernel_size: Triple, cin: int, cout: int, size: Triple, rtol: float, eps: float) -> Triple:
    return cheapest_tile(kernel_size, cin, cout, size, rtol, eps).outputs


def _is_direct(x: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor | None) -> bool:
    """Whether cuDNN takes a call. Arguments that are not alike go the other way, which converts or refuses them; under
    autocast float32 is like what it is cast to."""
    alike, dtype = [t for t in (weight, bias, residual) if t is not None], _autocast_dtype(x)
    like = (x.dtype, dtype, compute_dtype(dtype)) if _is_cast(x) else (x.dtype,)
    if any(t.dtype not in like or t.device != x.device for t in alike):
        return False
    if residual is not None and (residual.dim() != 5 or residual.shape[:2] != (x.shape[0], weight.shape[0])):
        return False
    training = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    return _goes_to_cudnn(x.device, dtype, int(weight.shape[1]), int(weight.shape[0]), _sizes(weight), training)


def _autocast_dtype(x: Tensor) -> torch.dtype:
    """What x is cast to before it is multiplied."""
    return torch.get_autocast_dtype(x.device.type) if _is_cast(x) else x.dtype


def _is_cast(x: Tensor) -> bool:
    return autocasts(x.device) and x.dtype != torch.float64


@_traced_as_constant
def _is_coarse(dtype: torch.dtype) -> bool:
    """Whether a GPU multiplies 16-bit numbers or rounds to TF32."""
    return dtype != torch.float64 and of_convolutions(dtype) != "ieee"


@_traced_as_constant
def _goes_to_cudnn(
    device: torch.device, dtype: torch.dtype, cin: int, cout: int, kernel_size: Triple, training: bool
) -> bool:
    return backends.choose(device, dtype, (cin, cout), kernel_size, training=training).name == "cudnn"


@_traced_as_constant
def _layer(tile: TileLike, kernel_size: Triple, padding: Triple, kept: tuple[int, ...] | None) -> Layer:
    whole = tile if isinstance(tile, Tile | int) else triple(tile, "tile")
    return _cached_layer(whole, kernel_size, padding, kept)


@_traced_as_constant
def _filter_table(tile: str, kept: tuple[int, ...] | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A new tensor every time: one kept from a fake mode would poison later training. On a GPU that would be a copy that
    # waits, which no CUDA graph may hold: there it is kept, where no mode looks on.
    if device.type == "cuda" and torch._C._len_torch_dispatch_stack() == 0:
        return _filter_table_on(tile, kept, dtype, device)
    return torch.tensor(_cached_filter_table(tile, kept), dtype=dtype, device=device)


@_traced_as_constant
def kept_index(kept: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept positions as an index on a GPU: one for all calls, as CUDA graphs hold it."""
    return _kept_index_on(kept, device)


@cache  # what CUDA graphs may hold must stay
def _kept_index_on(kept: tuple[int, ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(kept, device=device)


@cache
def _filter_table_on(tile: str, kept: tuple[int, ...] | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(_cached_filter_table(tile, kept), dtype=dtype, device=device)


@lru_cache(maxsize=1024)
def _cached_layer(
    tile: int | Triple | Tile, kernel_size: Triple, padding: Triple, kept: tuple[int, ...] | None
) -> Layer:
    chosen = Tile.of(tile, kernel_size)
    return Geometry(chosen, padding, None if kept is None else kept_positions(kept, chosen)).arguments


@lru_cache(maxsize=256)
def _cached_filter_table(tile: str, kept: tuple[int, ...] | None) -> npt.NDArray[np.floating]:
    """Kronecker product of the three G at the kept positions, float64 [K, r^3]."""
    d, h, w = (axis.array("G") for axis in Tile.parse(tile).axes)
    table = np.kron(np.kron(d, h), w)
    return table if kept is None else table[list(kept)]


def _positions(kept: Sequence[int] | Tensor | None) -> tuple[int, ...] | None:
    """`kept` as a tuple; its entries are checked with the tile."""
    if kept is None:
        return None
    if isinstance(kept, Tensor) and (kept.dim() != 1 or kept.dtype.is_floating_point or kept.dtype == torch.bool):
        raise ValueError(
            f"kept: {kept.dtype} {list(kept.shape)}; accepted are whole numbers in a sequence or [K] tensor"
        )
    try:
        return tuple(index(p) for p in (kept.tolist() if isinstance(kept, Tensor) else kept))
    except TypeError as error:
        raise ValueError(f"kept: {shown(kept)} is not a sequence of whole numbers") from error


def padding_sizes(padding: int | str | Sequence[int], kernel_size: Triple) -> Triple:
    """Zero padding per axis from what F.conv3d accepts: a size, three of them, "same" or "valid"."""
    if isinstance(padding, str) and padding == "valid":
        return (0, 0, 0)
    if isinstance(padding, str) and padding == "same":
        if any(r % 2 == 0 for r in kernel_size):
            raise ValueError(f"padding: 'same' pads unevenly for kernel_size {kernel_size}; accepted are odd sizes")
        d, h, w = (r // 2 for r in kernel_size)
        return d, h, w
    if isinstance(padding, str):
        raise ValueError(f"padding: {shown(padding)}; accepted are 'same', 'valid', an int or three ints")
    pads = triple(padding, "padding")
    if min(pads) < 0:
        raise ValueError(f"padding: {padding}; accepted are sizes from 0")
    return pads


def _sizes(weight: Tensor) -> Triple:
    return int(weight.shape[2]), int(weight.shape[3]), int(weight.shape[4])
