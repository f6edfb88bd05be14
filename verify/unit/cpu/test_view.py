"""Views of activations: other ways to see the same pixels name the same addresses."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from lrw_kernels.codegen.machine import FLOAT
from lrw_kernels.cpu.operators.grid import every
from lrw_kernels.cpu.step import View, spread_strides, view


def addresses(of: View) -> list[int]:
    """Of all numbers, in order."""
    places = product(*map(range, of.size[:4]), range(of.channels))
    strides = (*of.strides, FLOAT)
    return [of.address + sum(i * by for i, by in zip(place, strides, strict=True)) for place in places]


sizes = st.tuples(*[st.integers(1, 5)] * 4, st.integers(1, 3))
views = st.one_of(
    st.builds(lambda size: view(64, size), sizes),
    st.builds(lambda size: view(64, size, size[4] + 2), sizes),
    st.builds(lambda size: View(64, spread_strides(size), size), sizes),
)


@given(views, st.integers(1, 30))
def test_wider_rows_have_the_same_numbers_in_the_same_order(of: View, most: int) -> None:
    wide = of.widened(most)
    assert addresses(wide) == addresses(of)
    assert wide.size[3] <= max(most, of.size[3])


def test_rows_that_follow_one_another_become_one_as_long_as_is_asked_for() -> None:
    assert view(0, (1, 2, 6, 4, 3)).widened(12).size == (1, 2, 2, 12, 3)
    assert view(0, (1, 2, 6, 4, 3)).widened(100).size == (1, 2, 1, 24, 3)
    assert every(view(0, (1, 2, 6, 4, 3)), (0, 0, 0), (1, 2, 1)).widened(100).size == (1, 2, 3, 4, 3)


@given(views)
def test_pixels_moved_into_one_row_are_the_same(of: View) -> None:
    found, strides = of.merged()
    places = product(*map(range, found))
    merged = [of.address + sum(i * by for i, by in zip(place, strides, strict=True)) for place in places]
    assert merged == addresses(of)[:: of.channels]


@given(views, st.integers(1, 3))
def test_neighbours_taken_as_one_pixel_have_the_same_numbers(of: View, pixels: int) -> None:
    if of.side_by_side and of.size[3] % pixels == 0:
        assert addresses(of.together(pixels)) == addresses(of)
