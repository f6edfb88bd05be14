"""Operators that do the same to every pixel: a function of it, softmax."""

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.operators.intrinsics import apply, rows_at, softmax_pixel


@helper
def row_place(k, item):
    """The sample, plane and row (n, d, h) of work item `item`."""
    rest, h = item // k.out_h, item % k.out_h
    return rest // k.out_d, rest % k.out_d, h


def apply_item(function: str, lanes: int) -> Function:
    """Items are rows of pixels, or pieces of memory: `records.Rows`; `function` as in `emit_rows.emit_apply`."""

    def applies(job, item, scratch):
        k = rows_at(job)
        n, d, h = row_place(k, item)
        x = k.x + n * k.x_n + d * k.x_d + h * k.x_h
        z = k.z + n * k.z_n + d * k.z_d + h * k.z_h
        y = k.y + n * k.y_n + d * k.y_d + h * k.y_h
        count, own = min(k.channels, k.total - item * k.channels), n * k.scale_n
        scale, shift, centre = k.scale + own, k.shift + own, k.centre + own
        for w in range(k.out_w):
            at_x, at_z, at_y = x + w * k.x_w, z + w * k.z_w, y + w * k.y_w
            apply(function, lanes, at_x, at_z, at_y, scale, shift, centre, k.parameters, count)

    return applies


def softmax_item(lanes: int) -> Function:
    """Items are rows of pixels: `records.Rows`."""

    def softmax(job, item, scratch):
        k = rows_at(job)
        n, d, h = row_place(k, item)
        x = k.x + n * k.x_n + d * k.x_d + h * k.x_h
        y = k.y + n * k.y_n + d * k.y_d + h * k.y_h
        for w in range(k.out_w):
            softmax_pixel(lanes, x + w * k.x_w, y + w * k.y_w, k.channels)

    return softmax
