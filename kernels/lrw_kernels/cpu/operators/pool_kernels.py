"""The maximum or the mean over windows."""

from lrw_kernels.codegen.intrinsics import get
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.cpu.operators.intrinsics import pool_at, pool_pixel
from lrw_kernels.cpu.operators.rows_kernels import row_place


def pool_item(kind: str, shape: str, lanes: int) -> Function:
    """Items are rows of output pixels x groups of channels, groups fastest: `records.Pool`; "max" or "mean" over
    windows of one `shape`, such as "2x2x2", or of any if that is empty."""

    def pool(job, item, scratch):
        k = pool_at(job)
        groups = (k.channels + k.split - 1) // k.split
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
            pool_pixel(kind, shape, lanes, first, n_d, n_h, n_w, k.x_d, k.x_h, k.x_w, target, divisor * count_w, count)

    return pool
