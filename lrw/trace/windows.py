"""Pooling and enlargement as tables: which inputs each output reads along each axis."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lrw.trace.site import Activation, Refused, Site, Value, three, volume
from lrw_kernels.network.operators import Pool, Resample

Kind = Literal["max", "mean"]


class Windows(NamedTuple):
    """Along one axis: output o reads inputs starts[o] up to ends[o], not included; a mean divides by counts[o]."""

    starts: tuple[int, ...]
    ends: tuple[int, ...]
    counts: tuple[int, ...]


def sliding(
    inputs: int, outputs: int, kernel: int, stride: int, padding: int, *, count_padding: bool = True
) -> Windows:
    """Windows of `kernel` at every `stride`, over inputs with `padding` on both sides (more of it never counts)."""
    first = [o * stride - padding for o in range(outputs)]
    last = [min(start + kernel, inputs + padding) for start in first]
    starts, ends = [max(start, 0) for start in first], [min(end, inputs) for end in last]
    spans = zip(first, last, strict=True) if count_padding else zip(starts, ends, strict=True)
    return Windows(tuple(starts), tuple(ends), tuple(end - start for start, end in spans))


def adaptive(inputs: int, outputs: int) -> Windows:
    """`outputs` windows that cover the inputs as evenly as whole numbers can, overlapping where they must."""
    starts = tuple(o * inputs // outputs for o in range(outputs))
    ends = tuple(-(-(o + 1) * inputs // outputs) for o in range(outputs))
    return Windows(starts, ends, tuple(end - start for start, end in zip(starts, ends, strict=True)))


def pool(kind: Kind, axes: Sequence[Windows]) -> Pool:
    """The pooling operator of `kind` over windows along each of the three axes."""
    d, h, w = axes
    return Pool(kind, (d.starts, h.starts, w.starts), (d.ends, h.ends, w.ends), (d.counts, h.counts, w.counts))


def max_pool3d(
    at: Site, x: Value, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Activation:
    """Maxima over windows of dilation 1; the result's size says where windows round up."""
    if three(dilation) != (1, 1, 1):
        raise Refused(f"dilation {list(three(dilation))}; accepted is 1")
    return _slide(at, x, "max", kernel_size, stride, padding)


def max_pool3d_with_indices(at: Site, x: Value, **how: Any) -> tuple[Value, ...]:
    """The maxima; there are no indices."""
    return max_pool3d(at, x, **how), None


def avg_pool3d(
    at: Site, x: Value, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None,
) -> Activation:  # fmt: skip
    """Means over windows, or sums over `divisor_override`."""
    counted = count_include_pad
    return _slide(at, x, "mean", kernel_size, stride, padding, count_padding=counted, divisor=divisor_override)


def _slide(
    at: Site, x: Value, kind: Kind, kernel: Any, stride: Any, padding: Any, *, count_padding: bool = True,
    divisor: int | None = None,
) -> Activation:  # fmt: skip
    source, size = volume(x)
    sizes = size[1:4], at.shape[2:], three(kernel), three(stride or kernel), three(padding)
    axes = [sliding(*axis, count_padding=count_padding) for axis in zip(*sizes, strict=True)]
    if divisor is not None:
        factors = (divisor, 1, 1)
        axes = [a._replace(counts=(f,) * len(a.counts)) for a, f in zip(axes, factors, strict=True)]
    return at.add(pool(kind, axes), source)


def adaptive_avg_pool3d(at: Site, x: Value, output_size: Any) -> Activation:
    """Means over windows that divide each axis."""
    return _adapt(at, x, "mean")


def adaptive_max_pool3d(at: Site, x: Value, output_size: Any) -> tuple[Value, ...]:
    """Maxima over windows that divide each axis; there are no indices."""
    return _adapt(at, x, "max"), None


def _adapt(at: Site, x: Value, kind: Kind) -> Activation:
    source, size = volume(x)
    return at.add(pool(kind, [adaptive(n, out) for n, out in zip(size[1:4], at.shape[2:], strict=True)]), source)


def mean(at: Site, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Activation:
    """Means over all of the axes (2, 3, 4), kept or not, or over some of them, kept."""
    return _over(at, x, "mean", dim, keepdim)


def amax(at: Site, x: Value, dim: Any, keepdim: bool) -> Activation:
    """Maxima over all of the axes (2, 3, 4), kept or not, or over some of them, kept."""
    return _over(at, x, "max", dim, keepdim)


def total(at: Site, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Activation:
    """Sums over all of the axes (2, 3, 4), kept or not, or over some of them, kept."""
    return _over(at, x, "mean", dim, keepdim, divided=False)


def _over(at: Site, x: Value, kind: Kind, dim: Any, keepdim: bool, *, divided: bool = True) -> Activation:
    """One window over all of each axis in `dim`, windows of one along the others."""
    source, size = volume(x)
    axes = {axis % 5 for axis in (dim if isinstance(dim, list | tuple) else [dim])} if dim is not None else set()
    if axes != {2, 3, 4} and not (keepdim and axes and axes < {2, 3, 4}):
        raise Refused(f"dim {dim}; accepted is [2, 3, 4]" + (", or some of these" if keepdim else ""))
    windows = [adaptive(n, 1 if axis in axes else n) for axis, n in enumerate(size[1:4], start=2)]
    if not divided:
        windows = [window._replace(counts=(1,) * len(window.counts)) for window in windows]
    return at.add(pool(kind, windows), source)


def upsample_nearest3d(at: Site, x: Value, output_size: Any, **scales: Any) -> Activation:
    """Each output is the input torch's own formula takes."""
    return _resample(at, x, output_size, scales, torch.ops.aten.upsample_nearest3d)


def upsample_trilinear3d(at: Site, x: Value, output_size: Any, align_corners: bool, **scales: Any) -> Activation:
    """Each output lies between two inputs on each axis, where torch's own formula has it."""
    return _resample(at, x, output_size, scales, torch.ops.aten.upsample_trilinear3d, align_corners)


def _resample(
    at: Site, x: Value, output_size: Any, scales: dict[str, Any], operator: Callable[..., Tensor], *how: bool
) -> Activation:
    """The tables of `operator`, from what it gives itself for a unit at each input of an axis, in float32."""
    source, size = volume(x)
    factors = scales["scale_factors"] if "scale_factors" in scales else list(scales.values())
    low, high, share = [], [], []
    for n, outputs, factor in zip(size[1:4], at.shape[2:], factors or [None] * 3, strict=True):
        units = torch.eye(n).view(n, 1, n, 1, 1)
        response = operator(units, [outputs, 1, 1], *how, factor, None, None)[:, 0, :, 0, 0].T  # [outputs, n]
        taken = [row.nonzero().flatten().tolist() for row in response]
        low.append(tuple(t[0] for t in taken))
        high.append(tuple(t[-1] for t in taken))
        shares = [float(row[t[-1]]) if len(t) > 1 else 0.0 for row, t in zip(response, taken, strict=True)]
        share.append(tuple(shares))
    return at.add(Resample(tuple(low), tuple(high), tuple(share)), source)  # type: ignore[arg-type]
