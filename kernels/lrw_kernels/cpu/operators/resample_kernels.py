"""Trilinear resampling."""

from lrw_kernels.codegen.intrinsics import get
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.cpu.operators.intrinsics import blend_pixel, resample_at
from lrw_kernels.cpu.operators.rows_kernels import row_place


def resample_item(lanes: int) -> Function:
    """Items are rows of output pixels: `records.Resample`."""

    def resample(job, item, scratch):
        k = resample_at(job)
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
