"""Laws of the learning side.

- a low-rank update of full rank reaches every dense update; a zero factor changes nothing, bit for bit
- scores do not depend on how factors are split between G and B (plain magnitude does: the score trap)
- selection keeps the asked number, whatever the layers are called, and never loses a better column to a worse one
"""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrw.nn import LowRankWinogradConv3d, WinogradConv3d
from lrw.pruning import SCORES, select_global, select_per_layer
from lrw_kernels.winograd import Tile, importance
from verify.strategies import tiles

INVARIANT = [name for name in SCORES if name != "magnitude"]


def layer_of(tile: Tile, seed: int) -> WinogradConv3d:
    torch.manual_seed(seed)
    return WinogradConv3d(2, 3, tile.kernel_size, padding=tuple(r // 2 for r in tile.kernel_size), tile=tile)


@given(tiles(), st.integers(0, 2**31))
def test_full_rank_reaches_every_dense_update(tile: Tile, seed: int) -> None:
    layer = layer_of(tile, seed)
    low = LowRankWinogradConv3d.of(layer, tile.positions)
    change = torch.randn_like(layer.weight)
    with torch.no_grad():
        low.Gr.copy_(change)
        low.Gc.copy_(torch.eye(tile.positions))
    torch.testing.assert_close(low.weights(), layer.weight + change, rtol=0, atol=4e-7 * 8)


@given(tiles(), st.integers(0, 2**31), st.sampled_from(["gc_zero", "gr_zero"]))
def test_step_zero_is_the_given_layer_bit_for_bit(tile: Tile, seed: int, init: str) -> None:
    layer = layer_of(tile, seed)
    before = layer(x := torch.randn(1, 2, 6, 5, 7))
    low = LowRankWinogradConv3d.of(layer, min(3, tile.positions), init)
    assert torch.equal(low(x), before)


@pytest.mark.parametrize("name", INVARIANT)
@given(tiles(), st.integers(0, 2**31))
def test_score_does_not_depend_on_the_scaling_of_the_transforms(name: str, tile: Tile, seed: int) -> None:
    """G -> S G, B -> S^-1 B gives u -> S u, dL/du -> S^-1 dL/du and F -> S^-1 F."""
    rng = np.random.default_rng(seed)
    t = tile.positions
    u, du = (torch.from_numpy(rng.standard_normal((t, 2, 3))) for _ in range(2))
    f, s = torch.from_numpy(importance(tile)), torch.from_numpy(np.exp(rng.uniform(-3, 3, t)))
    wide = s[:, None, None]
    plain, scaled = SCORES[name](u, du, f), SCORES[name](u * wide, du / wide, f / s)
    # taylor's six products may cancel: their rounding is relative to the terms, which `product` sums.
    terms = float(SCORES["product"](u, du, f).max())
    torch.testing.assert_close(scaled, plain, rtol=1e-12, atol=8 * 2.0**-52 * terms)


def test_plain_magnitude_does_depend_on_it() -> None:
    """The score trap of research: on F(4,3)^3 the row norms of G alone spread over two orders of magnitude."""
    tile = Tile.of(4)
    spatial = torch.randn(8, 8, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    from lrw.ops import transform_weight

    u = transform_weight(spatial, tile).double()
    scores = SCORES["magnitude"](u, u, torch.ones(tile.positions))
    assert float(scores.max() / scores.min()) > 30


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_per_layer_selection_keeps_the_best(scores: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    kept = select_per_layer([float(s) for s in scores], range(len(scores)), keep)
    assert len(kept) == keep
    assert list(kept) == sorted(set(kept))
    dropped = set(range(len(scores))) - set(kept)
    assert all(scores[k] >= scores[d] for k in kept for d in dropped)


@given(
    st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), min_size=1, max_size=4), st.floats(0, 1), st.data()
)
def test_global_selection_respects_budget_and_floor(layers: list[list[int]], share: float, data: st.DataObject) -> None:
    names = [f"layer{i}" for i in range(len(layers))]
    scores = {n: [float(s) for s in values] for n, values in zip(names, layers, strict=True)}
    costs = {n: float(data.draw(st.integers(1, 6))) for n in names}
    total = sum(costs[n] * len(scores[n]) for n in names)
    kept = select_global(scores, {n: range(len(scores[n])) for n in names}, costs, share * total, floor=1)
    spent = sum(costs[n] * len(positions) for n, positions in kept.items())
    assert all(len(positions) >= 1 for positions in kept.values())
    assert spent <= max(share * total, sum(costs.values()))
