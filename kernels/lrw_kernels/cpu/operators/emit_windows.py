"""What makes one pixel of several, as vector code: a convolution's patches and epilogue, windows, neighbours."""

from collections.abc import Callable, Sequence
from typing import Any

from lrw_kernels.codegen.loops import counted_loop, each_vector, loop, merge
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.codegen.vector import FLOATS, I64, Vectors
from lrw_kernels.cpu.functions import followed
from lrw_kernels.network.operators import BY_CHANNEL


def emit_gather(v: Vectors, arguments: Sequence[Any]) -> None:
    """Vectors at `target`: `count` numbers at `source` or more, with zeros outside begin..end, which are not read.

    arguments (i64): source, target; begin, end, count.
    """
    source, target, begin, end, count = arguments
    b = v.builder
    vectors = b.udiv(b.add(count, I64(v.lanes - 1)), I64(v.lanes))

    def vector(i: Any, *, masked: bool) -> list[Any]:
        offset, first = b.mul(i, I64(v.bytes)), b.mul(i, I64(v.lanes))
        mask = v.between(b.sub(begin, first), b.sub(end, first)) if masked else None
        v.store(v.load_lanes(b.add(source, offset), mask), b.add(target, offset))
        return []

    inside = b.icmp_signed(">=", end, b.mul(vectors, I64(v.lanes)))
    with b.if_else(b.and_(b.icmp_signed("<=", begin, I64(0)), inside)) as (whole, part):
        with whole:
            loop(b, vectors, [], lambda i, _: vector(i, masked=False))
        with part:
            loop(b, vectors, [], lambda i, _: vector(i, masked=True))


def emit_add(v: Vectors, arguments: Sequence[Any]) -> None:
    """`count` vectors at target += those at source, `pitch` apart in both. arguments (i64): target, source, pitch,
    count."""
    target, source, pitch, count = arguments
    b = v.builder

    def vector(i: Any, _: list[Any]) -> list[Any]:
        to, at = (b.add(address, b.mul(i, pitch)) for address in (target, source))
        v.store(v.add(v.load(to), v.load(at)), to)
        return []

    loop(b, count, [], vector)


def emit_finish(v: Vectors, function: str, arguments: Sequence[Any]) -> None:
    """`count` channels of a pixel: source, whose vectors lie `pitch` apart, plus bias, plus residual if its address is
    not 0, then `function` where `after` is not 0.

    arguments (i64): source, pitch; bias (whole vectors), residual, target; after, parameters (BY_CHANNEL's in whole
    vectors); count.
    """
    source, pitch, bias, residual, target, after, parameters, count = arguments
    b = v.builder

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        at = b.add(source, b.mul(b.udiv(offset, I64(v.bytes)), pitch))
        total = v.add(v.load(at), v.load(b.add(bias, offset)))
        finish(v, function, total, offset, mask, (residual, target, after, parameters))
        return []

    each_vector(v, count, [], vector)


def finish(v: Vectors, function: str, total: Any, offset: Any, mask: Any, arguments: Sequence[Any]) -> None:
    """Store total, the vector at `offset` of a pixel's, plus the residual if its address is not 0, after `function`
    where `after` is not 0. arguments (i64): residual, target, after, parameters, of the pixel's first channel."""
    residual, target, after, parameters = arguments
    b, before = v.builder, v.builder.block
    with b.if_then(b.icmp_signed("!=", residual, I64(0))):
        added = v.add(total, v.load_lanes(b.add(residual, offset), mask))
        adding = b.block
    total = merge(b, [([total], before), ([added], adding)])[0]
    own = b.add(parameters, offset) if function == BY_CHANNEL else parameters
    v.store_lanes(followed(v, function, [total], after, own)[0], b.add(target, offset), mask)


def emit_finish_places(v: Vectors, function: str, arguments: Sequence[Any]) -> None:
    """The same for a vector of channels that lie in several places, `piece` channels in each of `count`.

    arguments (i64): source, bias; residual, target; places, pairs of bytes from target and residual on, one after the
    other; piece, count; after, parameters.
    """
    source, bias, residual, target, places, piece, count, after, parameters = arguments
    b = v.builder

    def place(i: Any, offset: int, base: Any) -> tuple[Any, Any]:
        """Where the vector would begin whose channels of place i lie there, and which those are."""
        first = b.mul(i, piece)
        there = v.load_integer(b.add(places, b.mul(i, I64(2 * ADDRESS))), offset)
        return b.sub(b.add(base, there), b.mul(first, I64(FLOAT))), v.between(first, b.add(first, piece))

    def added(i: Any, carried: list[Any]) -> list[Any]:
        return [v.add(carried[0], v.load_lanes(*place(i, ADDRESS, residual)))]

    def stored(i: Any, _: list[Any]) -> list[Any]:
        at, mask = place(i, 0, target)
        v.store_lanes(value, at, mask)
        return []

    total = v.add(v.load(source), v.load(bias))
    few = b.select(b.icmp_signed("!=", residual, I64(0)), count, I64(0))
    value = followed(v, function, loop(b, few, [total], added), after, parameters)[0]
    counted_loop(b, count, [], stored)


Values = list[Any]


def over_window(
    b: Any,
    counts: Sequence[Any],
    pitches: Sequence[Sequence[Any]],
    addresses: Sequence[Any],
    start: Values,
    inner: Callable[[Sequence[Any], Values], Values],
    outer: Callable[[Any, Any], Any],
) -> Values:
    """Three loops, over d, h and w: totals = inner(addresses, totals) along w from `start` on, and rows and planes of
    them put together by `outer`, one by one: partial results err less than one long sum. `pitches`: of each address,
    by axis. Counts that are Python's own give straight code."""
    if not counts:
        return inner(addresses, start)

    def turn(i: Any, carried: Values) -> Values:
        here = [b.add(address, b.mul(i, by[0])) for address, by in zip(addresses, pitches, strict=True)]
        if len(counts) == 1:
            return inner(here, carried)
        rest = over_window(b, counts[1:], [by[1:] for by in pitches], here, start, inner, outer)
        return [outer(total, part) for total, part in zip(carried, rest, strict=True)]

    if isinstance(counts[0], int):
        totals = start
        for i in range(counts[0]):
            totals = turn(I64(i), totals)
        return totals
    return loop(b, counts[0], start, turn)


def emit_depthwise(v: Vectors, function: str, group: int, pixels: int, arguments: Sequence[Any]) -> None:
    """`count` channels of so many `pixels` of a convolution in groups of `group` channels, then as `emit_finish`: a
    vector of weights serves all of them.

    arguments (i64): x and weights, the first tap's; taps_d, taps_h, taps_w; from tap to tap along d, h, w in x, then in
    the weights (whole vectors), and there from channel to channel of a group; bias, residual, target; after,
    parameters; from pixel to pixel in x, in the residual, in the target; count.
    """
    x, weights = arguments[:2]
    taps, x_pitches, weight_pitches = arguments[2:5], arguments[5:8], arguments[8:11]
    weights_channel, bias, residual, target, after, parameters, *by_pixel, count = arguments[11:]
    b = v.builder
    apart = [[b.mul(pitch, I64(i)) for i in range(pixels)] for pitch in by_pixel]

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        def tap(at: Sequence[Any], totals: Values) -> Values:
            values = [v.load_lanes(b.add(at[0], shift), mask) for shift in apart[0]]
            weight = at[1]
            for channel in range(group):  # of each group, to all of its lanes
                places = [lane // group * group + channel for lane in range(v.lanes)]
                given = values if group == 1 else [v.shuffle(value, value, places) for value in values]
                by = v.load(weight)
                totals = [v.fma(by, value, total) for value, total in zip(given, totals, strict=True)]
                weight = b.add(weight, weights_channel)
            return totals

        start, zeros = [b.add(x, offset), b.add(weights, offset)], [v.constant(0.0)] * pixels
        totals = over_window(b, taps, (x_pitches, weight_pitches), start, zeros, tap, v.add)
        added = v.load(b.add(bias, offset))
        for total, *shifts in zip(totals, *apart[1:], strict=True):
            there = b.icmp_signed("!=", residual, I64(0))
            own = b.select(there, b.add(residual, shifts[0]), residual)
            epilogue = own, b.add(target, shifts[1]), after, parameters
            finish(v, function, v.add(total, added), offset, mask, epilogue)
        return []

    each_vector(v, count, [], vector)


def emit_pool(v: Vectors, kind: str, shape: str, arguments: Sequence[Any]) -> None:
    """`count` channels of a pixel of the maximum ("max"), or the sum over `divisor` ("mean"), over a window.

    arguments (i64): x, the window's first pixel; n_d, n_h, n_w of it; from pixel to pixel along d, h, w; target;
    divisor; count. Where `shape`, such as "2x2x2", is given, it stands for n_d, n_h, n_w.
    """
    x, windows, pitches = arguments[0], arguments[1:4], arguments[4:7]
    windows = [int(size) for size in shape.split("x")] if shape else windows
    target, divisor, count = arguments[7:]
    b = v.builder
    start, combine = (v.constant(float("-inf")), v.larger) if kind == "max" else (v.constant(0.0), v.add)

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        def pixel(at: Sequence[Any], totals: Values) -> Values:
            return [combine(totals[0], v.load_lanes(at[0], mask))]

        (total,) = over_window(b, windows, (pitches,), [b.add(x, offset)], [start], pixel, combine)
        if kind == "mean":
            total = b.fdiv(total, v.splat(b.sitofp(divisor, FLOATS["float32"])))
        v.store_lanes(total, b.add(target, offset), mask)
        return []

    each_vector(v, count, [], vector)


def emit_blend(v: Vectors, arguments: Sequence[Any]) -> None:
    """`count` channels of a pixel between eight others, along w, then h, then d: (1 - share) low + share high.

    arguments (i64): the rows low and high in d, and of each those low and high in h; the pixels low and high in them;
    addresses of the shares along d, h, w; target; count.
    """
    rows, pixels, shares, (target, count) = arguments[:4], arguments[4:6], arguments[6:9], arguments[9:]
    b = v.builder
    of_high = [v.splat(v.load_scalar(address)) for address in shares]
    along_d, along_h, along_w = [(share, v.sub(v.constant(1.0), share)) for share in of_high]

    def blend(share: tuple[Any, Any], low: Any, high: Any) -> Any:
        return v.fma(share[0], high, b.fmul(share[1], low))

    def vector(offset: Any, mask: Any, _: list[Any]) -> list[Any]:
        corners = [[v.load_lanes(b.add(b.add(row, at), offset), mask) for at in pixels] for row in rows]
        along = [blend(along_w, *corner) for corner in corners]
        value = blend(along_d, blend(along_h, *along[:2]), blend(along_h, *along[2:]))
        v.store_lanes(value, b.add(target, offset), mask)
        return []

    each_vector(v, count, [], vector)
