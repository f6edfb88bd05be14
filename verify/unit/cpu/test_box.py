"""Boxes: every output pixel is in one of them, with the taps it meets; their blocks, and the sums along them."""

from itertools import product
from math import prod

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.box import Axis, Box, boxes, entries, intervals
from lrw_kernels.cpu.operators.emit_boxes import heights
from lrw_kernels.cpu.operators.grid import Grid
from lrw_kernels.cpu.operators.taps import Taps
from lrw_kernels.cpu.step import view

axes = st.tuples(
    st.integers(1, 9), st.integers(1, 9), st.integers(-4, 3), st.integers(1, 3),
    st.lists(st.integers(-3, 6), min_size=1, max_size=4, unique=True).map(lambda at: tuple(enumerate(sorted(at)))),
)  # fmt: skip
"""Of outputs, of inputs; start and step; taps."""


def met(o: int, size: int, start: int, step: int, taps: Taps) -> Taps:
    """Those taps by which output o meets the input."""
    return tuple((k, offset) for k, offset in taps if 0 <= start + step * o + offset < size)


@given(axes)
def test_intervals_are_all_outputs_in_order(axis: tuple[int, int, int, int, Taps]) -> None:
    outputs, *rest = axis
    found = [(o, of.taps) for of in intervals(*axis) for o in range(of.first, of.first + of.length)]
    assert found == [(o, met(o, *rest)) for o in range(outputs)]


@given(st.integers(1, 2), st.tuples(axes, axes, axes), st.integers(1, 3), st.integers(0, 2))
def test_every_pixel_is_in_one_box_and_meets_its_taps(
    batch: int, of: tuple[tuple[int, int, int, int, Taps], ...], channels: int, beside: int
) -> None:
    (outputs, inputs, start, step, taps) = zip(*of, strict=True)
    x = view(1 << 20, (batch, *inputs, channels))
    y = view(1 << 30, (batch, *outputs, 2), 2 + beside)  # with channels beside
    written = dict[int, tuple[int, tuple[Taps, ...]]]()
    for box in boxes(x, y, Grid(start, step, taps), None):
        assert box.pixels == prod(axis.length for axis in box.axes)
        for place in product(*(range(axis.length) for axis in box.axes)):
            at, to = (
                box.first[i] + sum(n * axis[1 + i] for n, axis in zip(place, box.axes, strict=True)) for i in (0, 1)
            )
            assert to not in written
            written[to] = at, box.taps
    for n, *o in product(range(batch), *map(range, outputs)):
        to = y.address + sum(i * by for i, by in zip((n, *o), y.strides, strict=True))
        at, found = written.pop(to)
        expected = tuple(met(i, *axis[1:]) for i, axis in zip(o, of, strict=True))
        assert found == expected or (not all(found) and not all(expected))
        if all(expected):
            first = (i * by + b + t[0][1] for i, by, b, t in zip(o, step, start, expected, strict=True))
            assert at == x.address + sum(i * by for i, by in zip((n, *first), x.strides, strict=True))
    assert not written


@given(st.integers(1, 200), st.sampled_from([6, 14]))
def test_blocks_cover_a_line_with_no_more_rows_than_it_has(length: int, rows: int) -> None:
    box = Box((0, 0, 0), (Axis(length), Axis(3), Axis(1), Axis(2)), ())
    height, blocks = box.height(rows), box.blocks(rows) // 6
    assert height in heights(rows)
    assert height <= length
    assert (blocks - 1) * height < length <= blocks * height


@given(st.integers(1, 40), st.booleans(), st.data())
def test_entries_are_each_number_of_the_sum_and_its_weights(cin: int, beside: bool, data: st.DataObject) -> None:
    lanes = 8
    x = view(0, (1, 5, 6, 7, cin), cin + beside)
    used = [range(data.draw(st.integers(1, 3))) for _ in range(3)]
    taps = tuple(
        tuple((k, k + 2) for k in axis if k >= data.draw(st.integers(0, len(axis) - 1))) or ((len(axis) - 1, 4),)
        for axis in used
    )
    runs, singles = entries(taps, [[*axis] for axis in used], x.strides, cin, lanes)
    found = [(at + FLOAT * i, row + i) for at, row in runs.tolist() for i in range(lanes)]
    found += [(at, row) for at, row in singles.tolist()]
    expected = []
    for of in product(*taps):
        at = sum((offset - axis[0][1]) * by for (_, offset), axis, by in zip(of, taps, x.strides[1:], strict=True))
        row = int(np.ravel_multi_index([k for k, _ in of], [len(axis) for axis in used])) * cin
        expected += [(at + FLOAT * c, row + c) for c in range(cin)]
    assert sorted(found) == sorted(expected)
