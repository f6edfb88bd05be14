"""Planes, rows and pixels by tables, in channels of wider buffers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import NEON, Machine
from lrw_kernels.cpu.operators.gather import LONGEST, Run, gather, runs
from lrw_kernels.cpu.step import view
from verify.strategies import Array
from verify.unit.cpu.operators import Buffer, Input, assert_lowers, every_machine, inputs, run


def table(size: int) -> st.SearchStrategy[list[int]]:
    """Any places of an axis, some outside, and those that follow one another."""
    some = st.lists(st.integers(-1, size - 1), min_size=1, max_size=9)
    return some | st.builds(
        lambda before, after: [-1] * before + [*range(size)] + [-1] * after, *[st.integers(0, 3)] * 2
    )


def expected(x: Array, index: tuple[list[int], ...], value: float) -> Array:
    inside = np.ones((1, 1, 1, 1, 1), bool)
    for axis, places in enumerate(map(np.array, index), start=1):
        form = [1] * 5
        form[axis] = len(places)
        x, inside = x.take(places, axis), inside & (places >= 0).reshape(form)
    return np.where(inside, x, np.float32(value))


@every_machine
@settings(max_examples=60)
@given(inputs, st.data(), st.sampled_from([0.0, 0.5, -np.inf]))
def test_gather(machine: Machine, case: Input, data: st.DataObject, value: float) -> None:
    d, h, w = (data.draw(table(size)) for size in case.size[1:4])
    y = expected(case.x, (d, h, w), value)
    wider = data.draw(st.sampled_from([case.wider, (0, 0)]))
    source, target = Buffer(case.size, *case.wider, case.x), Buffer(y.shape, *wider)
    run(gather(source.view, target.view, machine, (d, h, w), value), case.threads)
    np.testing.assert_array_equal(target.check(), y)


@pytest.mark.parametrize(
    ("channels", "wider", "index", "found"),
    [
        (3, 0, [-1, -1, 0, 1, 2, -1], [Run(0, -1, 6), Run(24, 0, 9), Run(60, -1, 3)]),
        (3, 0, [2, 1, 1], [Run(0, 24, 3), Run(12, 12, 3), Run(24, 12, 3)]),
        (3, 1, [1, 2], [Run(0, 16, 3), Run(12, 32, 3)]),
        (LONGEST // 2, 0, [0, 1, 2], [Run(0, 0, LONGEST), Run(4 * LONGEST, 4 * LONGEST, LONGEST // 2)]),
        (LONGEST + 1, 0, [0], [Run(0, 0, LONGEST + 1)]),
    ],
)
def test_runs_are_as_long_as_memory_allows(channels: int, wider: int, index: list[int], found: list[Run]) -> None:
    x = view(0, (1, 1, 1, 3, channels), channels + wider)
    assert runs(x, view(0, (1, 1, 1, len(index), channels)), index) == found


def test_kernels_lower_to_another_machine() -> None:
    x = view(0, (1, 2, 2, 2, 3))
    assert_lowers([gather(x, x, NEON, ([0, -1], [1, 0], [0, 1]))])
