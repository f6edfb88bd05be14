"""The three operators behind `lrw.ops`, registered with torch: kernel, fake and autograd of each.

Convolution is bilinear, so they close under differentiation: `forward(x, U)`, `input_grad(dY, U)` and
`weight_grad(x, dY)`. Each one's gradients are the other two, to any order. Half precision is computed in float32. The
forward operator also adds a bias, and for inference a residual, and applies ReLU, which a backend may fuse.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrw import backends, checks
from lrw.activations import compute_dtype, formatted, inner, is_channels_last, outer, owned, unwritten, without_autocast
from lrw.backends import composed
from lrw.backends.epilogue import Epilogue
from lrw.geometry import Geometry, Layer, geometry
from lrw_kernels.winograd.tile import Triple

_LAYER = "str tile, int[] padding, int[]? kept, bool fixed, str backend"


def _geometry(tile: str, padding: Sequence[int], kept: Sequence[int] | None, fixed: bool) -> Geometry:
    d, h, w = padding
    return geometry(tile, (d, h, w), None if kept is None else tuple(kept), fixed)


def check_forward(x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None, layer: Layer, name: str) -> None:
    """Shapes, dtypes and devices against each other and the layer; raises ValueError naming the argument."""
    dtypes = (x.dtype, compute_dtype(x.dtype))
    checks.check_weights(u, layer.columns, name)
    checks.check_activation(x, u.shape[1])
    checks.check_pair(x, u, name, dtypes)
    checks.check_bias(x, bias, u.shape[2], dtypes)
    size = layer.output_size(x.shape[2:])
    checks.check_output_size(size, x.shape[2:])
    checks.check_residual(x, residual, (x.shape[0], u.shape[2], *size), (x.dtype,))


def _check_input_grad(dy: Tensor, u: Tensor, input_size: Sequence[int], layer: Layer) -> Triple:
    """As `check_forward`, for the gradient with respect to an input of `input_size` [3], which comes back."""
    checks.check_weights(u, layer.columns, "u")
    checks.check_activation(dy, u.shape[2], "dy")
    checks.check_pair(dy, u, "u", (dy.dtype, compute_dtype(dy.dtype)))
    if len(input_size) != 3:
        raise ValueError(f"input_size: {list(input_size)}; accepted are three sizes (D, H, W)")
    _check_output(dy, layer, input_size)
    d, h, w = input_size
    return d, h, w


def _check_weight_grad(x: Tensor, dy: Tensor, layer: Layer) -> None:
    """As `check_forward`, for the gradient with respect to U."""
    for activation, name in ((x, "x"), (dy, "dy")):
        checks.check_activation(activation, None, name)
    checks.check_pair(x, dy, "dy", (x.dtype,))
    if x.shape[0] != dy.shape[0]:
        raise ValueError(f"dy: a batch of {dy.shape[0]}; accepted is that of x, {x.shape[0]}")
    _check_output(dy, layer, x.shape[2:])


def _check_output(dy: Tensor, layer: Layer, input_size: Sequence[int]) -> None:
    size = layer.output_size(input_size)
    checks.check_output_size(size, input_size)
    if tuple(dy.shape[2:]) != size:
        raise ValueError(f"dy: size {tuple(dy.shape[2:])}; accepted is that of the output, {size}")


def forward(
    x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool,
    tile: str, padding: Sequence[int], kept: Sequence[int] | None, fixed: bool, backend: str,
) -> Tensor:  # fmt: skip
    """`winograd_forward` itself, for tensors that need no dispatch."""
    run, layer = backends.backend(backend, x.device, x.dtype), _geometry(tile, padding, kept, fixed)
    check_forward(x, u, bias, residual, layer.arguments, "u")
    checks.check_memory(input=x, u=u, bias=bias, residual=residual)
    epilogue = Epilogue(bias, None if residual is None else inner(residual), relu)
    with without_autocast(x.device):
        return owned(outer(run.forward(inner(x), u, layer, epilogue), x))


def rectified_forward(x: Tensor, u: Tensor, bias: Tensor | None, layer: Layer, backend: str) -> Tensor:
    """A Winograd-ReLU layer: not bilinear, so none of the three operators, but tensor operations torch differentiates.

    Raises ValueError for backends other than "auto" and "torch".
    """
    check_rectifying(backend)
    rectified = replace(_geometry(layer.tile, layer.padding, layer.kept, layer.fixed), rectified=True)
    with without_autocast(x.device):
        return outer(composed.forward(inner(x), u, rectified, Epilogue(bias)), x)


def check_rectifying(backend: str) -> None:
    """Raises ValueError for backends that compute no Winograd-ReLU layers."""
    if backend not in ("auto", "torch"):
        raise ValueError(f"backend: {backend!r} computes no Winograd-ReLU layers; accepted are auto, torch")


def prepare(
    x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool,
    tile: str, padding: Sequence[int], kept: Sequence[int] | None, fixed: bool, backend: str,
) -> backends.Prepared:  # fmt: skip
    """`forward` as a function of the tensors, for those of these forms and for U as it is now."""
    layer = (tile, padding, kept, fixed, backend)
    if is_channels_last(x):
        epilogue = Epilogue(bias, None if residual is None else inner(residual), relu)
        more = backends.further(backends.backend(backend, x.device, x.dtype))
        known = _geometry(tile, padding, kept, fixed)
        prepared = None if more is None else more.prepare(inner(x), u, known, epilogue)
        if prepared is not None:
            return prepared
    return lambda x, u, bias, residual: forward(x, u, bias, residual, relu, *layer)


def _input_grad_op(
    dy: Tensor, u: Tensor, input_size: list[int],
    tile: str, padding: list[int], kept: list[int] | None, fixed: bool, backend: str,
) -> Tensor:  # fmt: skip
    run, layer = backends.backend(backend, dy.device, dy.dtype), _geometry(tile, padding, kept, fixed)
    d, h, w = _check_input_grad(dy, u, input_size, layer.arguments)
    checks.check_memory(dy=dy, u=u)
    with without_autocast(dy.device):
        return owned(outer(run.input_grad(inner(dy), u, layer, (d, h, w)), dy))


def _weight_grad_op(
    x: Tensor, dy: Tensor, tile: str, padding: list[int], kept: list[int] | None, fixed: bool, backend: str
) -> Tensor:
    run, layer = backends.backend(backend, x.device, x.dtype), _geometry(tile, padding, kept, fixed)
    _check_weight_grad(x, dy, layer.arguments)
    checks.check_memory(x=x, dy=dy)
    with without_autocast(x.device):
        return run.weight_grad(inner(x), inner(dy), layer).contiguous()  # wide; autograd brings it to u's dtype


def _forward_fake(
    x: Tensor, u: Tensor, bias: Tensor | None, residual: Tensor | None, relu: bool,
    tile: str, padding: list[int], kept: list[int] | None, fixed: bool, backend: str,
) -> Tensor:  # fmt: skip
    layer = _geometry(tile, padding, kept, fixed).arguments
    check_forward(x, u, bias, residual, layer, "u")
    return unwritten(x, (x.shape[0], u.shape[2], *layer.output_size(x.shape[2:])))


def _input_grad_fake(
    dy: Tensor, u: Tensor, input_size: list[int],
    tile: str, padding: list[int], kept: list[int] | None, fixed: bool, backend: str,
) -> Tensor:  # fmt: skip
    size = _check_input_grad(dy, u, input_size, _geometry(tile, padding, kept, fixed).arguments)
    return unwritten(dy, (dy.shape[0], u.shape[1], *size))


def _weight_grad_fake(
    x: Tensor, dy: Tensor, tile: str, padding: list[int], kept: list[int] | None, fixed: bool, backend: str
) -> Tensor:
    layer = _geometry(tile, padding, kept, fixed)
    _check_weight_grad(x, dy, layer.arguments)
    return x.new_empty((layer.columns, x.shape[1], dy.shape[1]), dtype=compute_dtype(x.dtype))


def _forward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, u, bias, residual, relu, *ctx.layer = inputs
    if residual is not None or relu:
        raise NotImplementedError("winograd_forward: residual and relu are for inference; gradients go through neither")
    ctx.bias_dtype = None if bias is None else bias.dtype
    ctx.save_for_backward(x, u)


def _forward_backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, u = ctx.saved_tensors
    dy = formatted(dy, x)  # and dx follows
    ops = torch.ops.lrw
    dx = ops.winograd_input_grad(dy, u, x.shape[2:], *ctx.layer) if ctx.needs_input_grad[0] else None
    du = ops.winograd_weight_grad(x, dy, *ctx.layer) if ctx.needs_input_grad[1] else None
    dbias = dy.sum((0, 2, 3, 4), dtype=ctx.bias_dtype) if ctx.needs_input_grad[2] else None
    return dx, du, dbias, *(None,) * 7


def _input_grad_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, u, _, *ctx.layer = inputs
    ctx.save_for_backward(dy, u)


def _input_grad_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    dy, u = ctx.saved_tensors
    ops = torch.ops.lrw
    d_dy = ops.winograd_forward(g, u, None, None, False, *ctx.layer) if ctx.needs_input_grad[0] else None
    du = ops.winograd_weight_grad(g, dy, *ctx.layer) if ctx.needs_input_grad[1] else None
    return d_dy, du, *(None,) * 6


def _weight_grad_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, dy, *ctx.layer = inputs
    ctx.save_for_backward(x, dy)


def _weight_grad_backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
    x, dy = ctx.saved_tensors
    ops = torch.ops.lrw
    dx = ops.winograd_input_grad(dy, g, x.shape[2:], *ctx.layer) if ctx.needs_input_grad[0] else None
    d_dy = ops.winograd_forward(x, g, None, None, False, *ctx.layer) if ctx.needs_input_grad[1] else None
    return dx, d_dy, *(None,) * 5


def register(
    signature: str,
    run: Callable[..., Tensor],
    fake: Callable[..., Tensor],
    context: Callable[..., None],
    backward: Callable[..., tuple[Any, ...]],
) -> None:
    """Make the operator known to torch: `run` computes it on every device, `fake` gives its shape, and `backward` of
    what `context` keeps its gradients."""
    name = "lrw::" + signature.partition("(")[0]
    torch.library.define(name, signature.removeprefix(name.removeprefix("lrw::")), tags=[torch.Tag.pt2_compliant_tag])
    torch.library.impl(name, "default", run)
    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, backward, setup_context=context)


register(f"winograd_forward(Tensor x, Tensor u, Tensor? bias, Tensor? residual, bool relu, {_LAYER}) -> Tensor",
          forward, _forward_fake, _forward_context, _forward_backward)  # fmt: skip
register(f"winograd_input_grad(Tensor dy, Tensor u, SymInt[] input_size, {_LAYER}) -> Tensor",
          _input_grad_op, _input_grad_fake, _input_grad_context, _input_grad_backward)  # fmt: skip
register(f"winograd_weight_grad(Tensor x, Tensor dy, {_LAYER}) -> Tensor",
          _weight_grad_op, _weight_grad_fake, _weight_grad_context, _weight_grad_backward)  # fmt: skip
