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


@helper
def row_at(k, n, row):
    """The address in x of row `row` of sample `n`."""
    return k.x + n * k.x_n + row // k.out_h * k.x_d + row % k.out_h * k.x_h


def parts_item(lanes: int) -> Function:
    """Items are parts of samples: sums, the mean of the part, then differences from that and their squares."""

    def parts(job, item, scratch):
        k = statistics_at(job)
        rows = k.out_d * k.out_h
        n, first = item // k.count, item % k.count * k.rows
        last = min(rows, first + k.rows)
        centre = k.parts + item * 3 * k.line
        total, squares = centre + k.line, centre + 2 * k.line
        clear(centre, 3 * k.line)
        for row in range(first, last):
            row_sum(lanes, row_at(k, n, row), k.x_w, k.out_w, centre, k.channels)
        for c in range(0, k.channels * FLOAT, FLOAT):
            store_float(centre + c, load_float(centre + c) / ((last - first) * k.out_w))
        for row in range(first, last):
            row_squares(lanes, row_at(k, n, row), k.x_w, k.out_w, centre, total, squares, k.channels)

    return parts


@helper
def part_numbers(k, part):
    """Numbers of a channel in a part of a sample."""
    return (min(k.out_d * k.out_h, (part + 1) * k.rows) - part * k.rows) * k.out_w


def statistics_item() -> Function:
    """Items are groups of channels of samples, groups fastest: from parts to what normalises, in float64."""

    def statistics(job, item, scratch):
        k = statistics_at(job)
        numbers = k.out_d * k.out_h * k.out_w * k.times * k.group_channels
        pitch = k.channels // k.times * FLOAT
        n, first = item // k.groups, item % k.groups * k.group_channels * FLOAT
        last = first + k.group_channels * FLOAT
        mean, variance, share = 0.0, 0.0, 1 / numbers
        for part in range(k.count):
            centre, of = k.parts + (n * k.count + part) * 3 * k.line, part_numbers(k, part)
            for time in range(k.times):
                for c in range(first + time * pitch, last + time * pitch, FLOAT):
                    mean += (of * load_float(centre + c) + load_float(centre + k.line + c)) * share
        for part in range(k.count):
            centre, of = k.parts + (n * k.count + part) * 3 * k.line, part_numbers(k, part)
            for time in range(k.times):
                for c in range(first + time * pitch, last + time * pitch, FLOAT):
                    apart = load_float(centre + c) - mean
                    total, squares = load_float(centre + k.line + c), load_float(centre + 2 * k.line + c)
                    variance += (squares + apart * (2 * total + of * apart)) * share  # of x - mean, all of it
        inverse = 1 / square_root(variance + load_float(k.epsilon))
        result = k.results + n * 3 * k.line
        for c in range(first, last, FLOAT):
            scale = inverse * load_float(k.gain + c)
            for to in range(result + c, result + c + k.times * pitch, pitch):
                store_float(to, mean)
                store_float(to + k.line, scale)
                lost = mean - load_float(to)  # in rounding the mean
                store_float(to + 2 * k.line, load_float(k.offset + c) - lost * scale)

    return statistics
