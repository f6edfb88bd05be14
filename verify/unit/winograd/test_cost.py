"""Counts without a clock: against Lavin & Gray's numbers, by hand on ragged edges."""

import pytest

from lrw_kernels.winograd import Tile, column_cost, direct_cost, winograd_cost


@pytest.mark.parametrize(("m", "saving"), [(2, 27 / 8), (4, 8.0), ((2, 4, 4), 6.0)])
def test_products_save_what_the_tile_promises(m: int | tuple[int, int, int], saving: float) -> None:
    direct = direct_cost((3, 3, 3), 16, 32, (8, 8, 8))
    assert direct.products / winograd_cost(Tile.of(m), 16, 32, (8, 8, 8)).products == saving


def test_transform_adds_of_f23_are_the_published_ones() -> None:
    """Per channel and tile of F(2,3)^3: 192 adds in, 112 out, no multiplies."""
    one = winograd_cost(Tile.of(2), 3, 5, (2, 2, 2))
    assert one.multiplies == one.products == 64 * 3 * 5
    assert one.adds - one.products == 192 * 3 + 112 * 5


def test_ragged_edges_cost_whole_tiles() -> None:
    tile = Tile.of((4, 2, 2), origin=(3, 0, 0))
    assert tile.grid((6, 7, 7)) == (3, 4, 4)  # three outputs before the first, so nine of them in tiles of four
    assert column_cost(tile, 3, 5, (6, 7, 7), batch=2) == 2 * 3 * 4 * 4 * 3 * 5


def test_pruning_saves_products_and_bytes_in_proportion() -> None:
    dense, pruned = (winograd_cost(Tile.of(2), 8, 8, (4, 4, 4), kept=kept) for kept in (None, range(16)))
    assert dense.products == 4 * pruned.products
    activations = 4 * (4 * 4 * 4) * (8 + 8)
    assert dense.moved - activations == 4 * (pruned.moved - activations)
