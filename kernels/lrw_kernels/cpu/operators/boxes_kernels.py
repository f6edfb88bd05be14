"""Convolution of activations where they lie, by boxes of output pixels that meet the same taps."""

from typing import Any

from lrw_kernels.codegen.intrinsics import get, put
from lrw_kernels.codegen.kernel import Function
from lrw_kernels.codegen.machine import ADDRESS, FLOAT
from lrw_kernels.codegen.settings import helper
from lrw_kernels.cpu.kernels import first_vector
from lrw_kernels.cpu.micro import CHUNK
from lrw_kernels.cpu.operators.emit_boxes import ENTRY
from lrw_kernels.cpu.operators.intrinsics import block_products, box_at, boxes_at, finish_pixel, finish_places
from lrw_kernels.cpu.operators.records import BLOCK_FIELDS, Box
from lrw_kernels.network.operators import BY_CHANNEL

BOX, BLOCK, PLACE = len(Box._fields_) * ADDRESS, BLOCK_FIELDS * ADDRESS, 2 * ADDRESS


@helper
def put_blocks(box, residual, first, count, table):
    """A table of `count` blocks of a box from the `first` on: x, y and residual (0 where there is none) of its first
    pixel, and how many of its pixels the block before it has as well."""
    of_line = (box.pixels + box.height - 1) // box.height
    for i in range(count):
        line, pixel = (first + i) // of_line, (first + i) % of_line * box.height
        w = min(pixel, box.pixels - box.height)
        a, rest = line % box.inner, line // box.inner
        b, c = rest % box.middle, rest // box.middle
        added = w * box.residual_pixel + a * box.residual_inner + b * box.residual_middle + c * box.residual_outer
        place = table + i * BLOCK
        put(place, box.x + w * box.x_pixel + a * box.x_inner + b * box.x_middle + c * box.x_outer)
        put(place + ADDRESS, box.y + w * box.y_pixel + a * box.y_inner + b * box.y_middle + c * box.y_outer)
        put(place + 2 * ADDRESS, box.residual + added if residual != 0 else 0)
        put(place + 3 * ADDRESS, pixel - w)


def _multiply(lanes: int, rows: int, vectors: int) -> Any:
    """(box, entries, runs, singles, table, blocks, weights, m, m_panel, add): a panel of weights, along some entries,
    meets all blocks."""

    @helper
    def products(box, entries, runs, singles, table, blocks, weights, m, m_panel, add):
        for i in range(blocks):
            x, following = get(table + i * BLOCK), get(table + (i + 1) * BLOCK)
            block_products(lanes, rows, vectors, entries, runs, singles, x, box.x_pixel, weights, m + i * m_panel,
                           box.height, add, following - x)  # fmt: skip

    return products


def _finish(lanes: int, rows: int, function: str) -> Any:
    """(k, box, table, blocks, first, last, m): the sums of panels first..last become outputs of all blocks."""
    line, by_channel = lanes * FLOAT, function == BY_CHANNEL

    @helper
    def finish(k, box, table, blocks, first, last, m):
        channel, end = first_vector(k, first) * lanes, min(k.channels, first_vector(k, last) * lanes)
        source = m
        while channel < end:  # a place at a time, or a vector of several
            few, within = k.piece < lanes, channel % k.piece
            count = min(lanes, end - channel) if few else min(k.piece - within, end - channel)
            to, shift = k.places + channel // k.piece * PLACE, channel * FLOAT
            bias, parameters = k.bias + shift, k.parameters + shift * by_channel
            y_shift, residual_shift = (0, 0) if few else (get(to) + within * FLOAT, get(to + ADDRESS) + within * FLOAT)
            for i in range(blocks):
                block, from_m = table + i * BLOCK, source + i * k.m_block
                y, residual = get(block + ADDRESS) + y_shift, get(block + 2 * ADDRESS)
                for row in range(get(block + 3 * ADDRESS), box.height):
                    at, target = from_m + row * line, y + row * box.y_pixel
                    added = residual + residual_shift + row * box.residual_pixel if residual != 0 else 0
                    if few:
                        finish_places(function, lanes, at, bias, added, target, to, k.piece, count // k.piece, k.after,
                                      parameters)  # fmt: skip
                    else:
                        finish_pixel(function, lanes, at, rows * line, bias, added, target, k.after, parameters, count)
            channel, source = channel + count, source + count // lanes * rows * line

    return finish


def boxes_item(lanes: int, rows: int, vectors: int, function: str) -> Function:
    """Items are runs of shares of a box's blocks x groups of panels of weights, groups fastest: `records.Boxes`.

    Stretch by stretch of the sum every panel of weights meets all blocks of a share.
    """
    line, finish = lanes * FLOAT, _finish(lanes, rows, function)
    wide, narrow = _multiply(lanes, rows, vectors), _multiply(lanes, rows, 1)

    @helper
    def all_products(k, box, table, blocks, first, last, m):
        entries, runs, singles, add, whole = box.entries, box.runs, box.singles, 0, k.vectors // vectors
        while runs + singles > 0 or add == 0:
            some = min(runs, CHUNK // lanes)
            few = min(singles, CHUNK) if some == 0 else 0
            c = m
            for panel in range(first, last):
                weights = k.weights + first_vector(k, panel) * k.weights_vector
                if panel < whole:
                    wide(box, entries, some, few, table, blocks, weights, c, k.m_block, add)
                    c += vectors * rows * line
                else:
                    narrow(box, entries, some, few, table, blocks, weights, c, k.m_block, add)
                    c += rows * line
            entries, runs, singles, add = entries + (some + few) * ENTRY, runs - some, singles - few, 1

    @helper
    def multiply(k, number, scratch):
        groups = (k.panels + k.split - 1) // k.split
        share, first = number // groups, number % groups * k.split
        at, begin = k.boxes, 0
        while share >= box_at(at).end:
            begin, at = box_at(at).end, at + BOX
        box, block = box_at(at), (share - begin) * k.share
        blocks, last = min(k.share, box.blocks - block), min(k.panels, first + k.split)
        put_blocks(box, k.residual, block, blocks + 1, scratch)  # one more: what is asked for ahead
        all_products(k, box, scratch, blocks, first, last, scratch + k.m_at)
        finish(k, box, scratch, blocks, first, last, scratch + k.m_at)

    def boxes(job, item, scratch):
        k = boxes_at(job)
        for number in range(item * k.run, min(k.shares, (item + 1) * k.run)):
            multiply(k, number, scratch)

    return boxes
