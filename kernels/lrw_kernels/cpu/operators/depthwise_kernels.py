"""Convolution of every channel by itself."""

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.operators.intrinsics import depthwise_at, depthwise_pixel
from lrw_kernels.network.operators import BY_CHANNEL


@helper
def taps_inside(start, by, taps, size):
    """First and last (not included) of the taps at start, start + by, ... that fall into 0..size."""
    first = min(taps, (-start + by - 1) // by) if start < 0 else 0
    last = min(taps, (size - start + by - 1) // by) if start < size else 0
    return first, max(first, last)


def depthwise_item(lanes: int, function: str) -> Function:
    """Items are rows of output pixels x groups of channels, groups fastest: `records.Depthwise`."""

    by_channel = function == BY_CHANNEL

    def depthwise(job, item, scratch):
        k = depthwise_at(job)
        groups, w_w = (k.channels + k.split - 1) // k.split, k.weights_pixel
        w_h = k.taps_w * w_w
        w_d = k.taps_h * w_h
        row, channel = item // groups, item % groups * k.split
        count, shift = min(k.split, k.channels - channel), channel * FLOAT
        rest, h = row // k.out_h, row % k.out_h
        n, d = rest // k.out_d, rest % k.out_d
        at_d, at_h = k.start_d + d * k.step_d, k.start_h + h * k.step_h
        d0, d1 = taps_inside(at_d, k.by_d, k.taps_d, k.size_d)
        h0, h1 = taps_inside(at_h, k.by_h, k.taps_h, k.size_h)
        x = k.x + n * k.x_n + (at_d + d0 * k.by_d) * k.x_d + (at_h + h0 * k.by_h) * k.x_h + shift
        weights = k.weights + d0 * w_d + h0 * w_h + shift
        y = k.y + n * k.y_n + d * k.y_d + h * k.y_h + shift
        residual = k.residual + n * k.residual_n + d * k.residual_d + h * k.residual_h + shift
        for w in range(k.out_w):
            at_w = k.start_w + w * k.step_w
            w0, w1 = taps_inside(at_w, k.by_w, k.taps_w, k.size_w)
            added = residual + w * k.residual_w if k.residual != 0 else 0
            depthwise_pixel(
                function,
                lanes,
                x + (at_w + w0 * k.by_w) * k.x_w,
                weights + w0 * w_w,
                d1 - d0,
                h1 - h0,
                w1 - w0,
                k.by_d * k.x_d,
                k.by_h * k.x_h,
                k.by_w * k.x_w,
                w_d,
                w_h,
                w_w,
                k.bias + shift,
                added,
                y + w * k.y_w,
                k.after,
                k.parameters + shift * by_channel,
                count,
            )

    return depthwise
