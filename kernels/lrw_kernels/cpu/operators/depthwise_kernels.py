"""Convolution of every channel by itself, or of a few together."""

from typing import Any

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.operators.intrinsics import depthwise_at, depthwise_pixels
from lrw_kernels.network.operators import BY_CHANNEL

TOGETHER = 4  # pixels that a vector of weights serves: their sums, of rows and of all, stay in 16 registers


@helper
def taps_inside(start, by, taps, size):
    """First and last (not included) of the taps at start, start + by, ... that fall into 0..size."""
    first = min(taps, (-start + by - 1) // by) if start < 0 else 0
    last = min(taps, (size - start + by - 1) // by) if start < size else 0
    return first, max(first, last)


def _pixels(lanes: int, group: int, function: str, count: int) -> Any:
    """(record, x, weights, planes, rows, w0, w1, residual, y, shift, channels): `count` pixels side by side, all of
    taps w0..w1 along w and of so many planes and rows."""
    by_channel = function == BY_CHANNEL

    @helper
    def some(k, x, weights, planes, rows, w0, w1, residual, y, shift, channels):
        w_h = k.taps_w * k.weights_tap
        depthwise_pixels(
            function, lanes, group, count, x + w0 * k.by_w * k.x_w, weights + w0 * k.weights_tap, planes, rows, w1 - w0,
            k.by_d * k.x_d, k.by_h * k.x_h, k.by_w * k.x_w, k.taps_h * w_h, w_h, k.weights_tap, k.weights_channel,
            k.bias + shift, residual, y, k.after, k.parameters + shift * by_channel, k.step_w * k.x_w, k.residual_w,
            k.y_w, channels
        )  # fmt: skip

    return some


def depthwise_item(lanes: int, group: int, function: str) -> Function:
    """Items are rows of output pixels x groups of channels, groups fastest: `records.Depthwise`. Pixels that have all
    taps along w are computed several at a time."""
    several, single = (_pixels(lanes, group, function, count) for count in (TOGETHER, 1))

    def depthwise(job, item, scratch):
        k = depthwise_at(job)
        groups, w_h = (k.channels + k.split - 1) // k.split, k.taps_w * k.weights_tap
        row, channel = item // groups, item % groups * k.split
        count, shift = min(k.split, k.channels - channel), channel * FLOAT
        rest, h = row // k.out_h, row % k.out_h
        n, d = rest // k.out_d, rest % k.out_d
        at_d, at_h = k.start_d + d * k.step_d, k.start_h + h * k.step_h
        d0, d1 = taps_inside(at_d, k.by_d, k.taps_d, k.size_d)
        h0, h1 = taps_inside(at_h, k.by_h, k.taps_h, k.size_h)
        x = k.x + n * k.x_n + (at_d + d0 * k.by_d) * k.x_d + (at_h + h0 * k.by_h) * k.x_h + shift
        weights = k.weights + d0 * k.taps_h * w_h + h0 * w_h + shift
        y = k.y + n * k.y_n + d * k.y_d + h * k.y_h + shift
        residual = k.residual + n * k.residual_n + d * k.residual_d + h * k.residual_h + shift
        reach, w = (k.taps_w - 1) * k.by_w, 0
        while w < k.out_w:
            at = k.start_w + w * k.step_w
            added = residual + w * k.residual_w if k.residual != 0 else 0
            last = at + (TOGETHER - 1) * k.step_w + reach
            if w + TOGETHER <= k.out_w and at >= 0 and last < k.size_w:
                several(k, x + at * k.x_w, weights, d1 - d0, h1 - h0, 0, k.taps_w, added, y + w * k.y_w, shift, count)
                w += TOGETHER
            else:
                w0, w1 = taps_inside(at, k.by_w, k.taps_w, k.size_w)
                single(k, x + at * k.x_w, weights, d1 - d0, h1 - h0, w0, w1, added, y + w * k.y_w, shift, count)
                w += 1

    return depthwise
