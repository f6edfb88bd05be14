"""Means and variances of groups of channels, such that they hold where the mean is far larger than the deviation."""

from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import clear
from lrw_kernels.cpu.operators.intrinsics import (
    load_float,
    row_squares,
    row_sum,
    square_root,
    statistics_at,
    store_float,
)
from lrw_kernels.cpu.operators.records import SCALES
from lrw_kernels.cpu.step import SUMS


@helper
def row_at(k, n, row):
    """The address in x of row `row` of sample `n`."""
    return k.x + n * k.x_n + row // k.out_h * k.x_d + row % k.out_h * k.x_h


def sums_item(lanes: int) -> Function:
    """Items are parts of samples: sums, the mean of the part, then differences from that and their squares, less what
    the mean was rounded by."""

    def sums(job, item, scratch):
        k = statistics_at(job)
        n, first = item // k.sample_tiles, item % k.sample_tiles * k.rows
        last = min(k.out_d * k.out_h, first + k.rows)
        count = k.parts + (item + n) * SUMS * k.line
        centre, total, squares = count + k.line, count + 2 * k.line, count + 3 * k.line
        clear(count, SUMS * k.line)
        for row in range(first, last):
            row_sum(lanes, row_at(k, n, row), k.x_w, k.out_w, centre, k.channels)
        for c in range(0, k.channels * FLOAT, FLOAT):
            store_float(count + c, (last - first) * k.out_w)
            store_float(centre + c, load_float(centre + c) / ((last - first) * k.out_w))
        for row in range(first, last):
            row_squares(lanes, row_at(k, n, row), k.x_w, k.out_w, centre, total, squares, k.channels)
        for c in range(0, k.channels * FLOAT, FLOAT):
            rest = load_float(total + c)
            store_float(squares + c, load_float(squares + c) - rest * rest / load_float(count + c))

    return sums


def statistics_item() -> Function:
    """Items are groups of channels of samples, groups fastest: from sums to what normalises, in float64."""

    def statistics(job, item, scratch):
        k = statistics_at(job)
        line, pitch = k.line, k.groups * k.group_channels * FLOAT
        n, first = item // k.groups, item % k.groups * k.group_channels * FLOAT
        last = first + k.group_channels * FLOAT
        begin, end = n * k.sample_tiles // k.tiles + n, ((n + 1) * k.sample_tiles - 1) // k.tiles + n + 1
        mean, variance, share = 0.0, 0.0, 1 / k.numbers
        for part in range(k.parts + begin * SUMS * line, k.parts + end * SUMS * line, SUMS * line):
            for time in range(k.times):
                for at in range(part + first + time * pitch, part + last + time * pitch, FLOAT):
                    mean += (load_float(at) * load_float(at + line) + load_float(at + 2 * line)) * share
        for part in range(k.parts + begin * SUMS * line, k.parts + end * SUMS * line, SUMS * line):
            for time in range(k.times):
                for at in range(part + first + time * pitch, part + last + time * pitch, FLOAT):
                    count = load_float(at)
                    apart = load_float(at + line) + load_float(at + 2 * line) / count - mean
                    variance += (load_float(at + 3 * line) + count * apart * apart) * share
        inverse = 1 / square_root(variance + load_float(k.epsilon))
        result = k.results + n * SCALES * k.result_line
        for c in range(first, last, FLOAT):
            scale = inverse * load_float(k.gain + c)
            for to in range(result + c, result + c + k.copies * pitch, pitch):
                store_float(to, mean)
                store_float(to + k.result_line, scale)
                lost = mean - load_float(to)  # in rounding the mean
                store_float(to + 2 * k.result_line, load_float(k.offset + c) - lost * scale)

    return statistics
