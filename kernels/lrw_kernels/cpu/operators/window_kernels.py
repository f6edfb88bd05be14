"""Operators whose output pixels look at several of the input's: pooling, trilinear resampling."""

from lrw_kernels.codegen.intrinsics import get
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.cpu.operators.intrinsics import blend_pixel, pool_at, pool_pixel, resample_at
from lrw_kernels.cpu.operators.records import FLOAT
from lrw_kernels.cpu.operators.row_kernels import row_place
from lrw_kernels.cpu.recipe import ADDRESS


def pool_range(kind: str, shape: str, lanes: int) -> Function:
    """Items are rows of output pixels x groups of channels, groups fastest: `records.Pool`; "max" or "mean" over
    windows of one `shape`, such as "2x2x2", or of any if that is empty."""

    def pool(job, begin, end, scratch):
        k = pool_at(job)
        groups = (k.channels + k.split - 1) // k.split
        for item in range(begin, end):
            channel = item % groups * k.split
            n, d, h = row_place(k, item // groups)
            count, shift, at_d, at_h = min(k.split, k.channels - channel), channel * FLOAT, d * ADDRESS, h * ADDRESS
            start_d, start_h = get(k.starts_d + at_d), get(k.starts_h + at_h)
            n_d, n_h = get(k.ends_d + at_d) - start_d, get(k.ends_h + at_h) - start_h
            x = k.x + n * k.x_n + start_d * k.x_d + start_h * k.x_h + shift
            y = k.y + n * k.y_n + d * k.y_d + h * k.y_h + shift
            divisor = get(k.counts_d + at_d) * get(k.counts_h + at_h)
            for w in range(k.out_w):
                at = w * ADDRESS
                start, count_w = get(k.starts_w + at), get(k.counts_w + at)
                first, n_w, target = x + start * k.x_w, get(k.ends_w + at) - start, y + w * k.y_w
                pool_pixel(
                    kind, shape, lanes, first, n_d, n_h, n_w, k.x_d, k.x_h, k.x_w, target, divisor * count_w, count
                )

    return pool


def resample_range(lanes: int) -> Function:
    """Items are rows of output pixels: `records.Resample`."""

    def resample(job, begin, end, scratch):
        k = resample_at(job)
        for item in range(begin, end):
            n, d, h = row_place(k, item)
            x, y = k.x + n * k.x_n, k.y + n * k.y_n + d * k.y_d + h * k.y_h
            low_d, high_d = x + get(k.low_d + d * ADDRESS) * k.x_d, x + get(k.high_d + d * ADDRESS) * k.x_d
            low_h, high_h = get(k.low_h + h * ADDRESS) * k.x_h, get(k.high_h + h * ADDRESS) * k.x_h
            low_low, low_high = low_d + low_h, low_d + high_h
            high_low, high_high = high_d + low_h, high_d + high_h
            share_d, share_h = k.share_d + d * FLOAT, k.share_h + h * FLOAT
            for w in range(k.out_w):
                low, high = get(k.low_w + w * ADDRESS) * k.x_w, get(k.high_w + w * ADDRESS) * k.x_w
                share_w, target = k.share_w + w * FLOAT, y + w * k.y_w
                blend_pixel(
                    lanes,
                    low_low,
                    low_high,
                    high_low,
                    high_high,
                    low,
                    high,
                    share_d,
                    share_h,
                    share_w,
                    target,
                    k.channels,
                )

    return resample
