"""Laws of the learning side.

- a low-rank update of full rank reaches every dense update; a zero factor changes nothing, bit for bit
- scores do not depend on how factors are split between G and B (plain magnitude does: the score trap)
- scores are their formulas
- selection in a layer keeps the asked number and never loses a better column to a worse one
- global selection: each layer's floor first, then by score per cost whatever still fits; a layer keeps its best
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrw.backends import composed
from lrw.nn import LowRankWinogradConv3d, WinogradConv3d
from lrw.nn import units as units_of
from lrw.pruning import SCORES, select_global, select_per_layer
from lrw_kernels import reference
from lrw_kernels.winograd import Tile, Transform, importance
from verify.strategies import Case, any_tile, cases

INVARIANT = [name for name in SCORES if name != "magnitude"]


def layer_of(tile: Tile, seed: int) -> WinogradConv3d:
    torch.manual_seed(seed)
    return WinogradConv3d(
        2, 3, tile.kernel_size, padding=tuple(r // 2 for r in tile.kernel_size), tile=tile, backend="torch"
    )


@given(any_tile(), st.integers(0, 2**31))
def test_full_rank_reaches_every_dense_update(tile: Tile, seed: int) -> None:
    layer = layer_of(tile, seed)
    low = LowRankWinogradConv3d.of(layer, tile.positions)
    change = torch.randn_like(layer.weight)
    with torch.no_grad():
        low.Gr.copy_(change)
        low.Gc.copy_(torch.eye(tile.positions))
    torch.testing.assert_close(low.weights(), layer.weight + change, rtol=0, atol=4e-7 * 8)


@given(any_tile(), st.integers(0, 2**31), st.sampled_from(["gc_zero", "gr_zero"]))
def test_step_zero_is_the_given_layer_bit_for_bit(tile: Tile, seed: int, init: str) -> None:
    layer = layer_of(tile, seed)
    before = layer(x := torch.randn(1, 2, 6, 5, 7))
    low = LowRankWinogradConv3d.of(layer, min(3, tile.positions), init)
    assert torch.equal(low(x), before)


@given(any_tile(), st.integers(0, 2**31), st.sampled_from(["importance", "gram"]))
def test_steps_do_not_depend_on_how_factors_are_split(tile: Tile, seed: int, units: str) -> None:
    """Rows of G times c, rows of B over c: factors of a low-rank layer, and free weights, have the same gradients, up
    to c's sign."""
    moved = Tile(tuple(rescaled(axis, seed) for axis in tile.axes), tile.origin)  # type: ignore[arg-type]
    scales = np.ones(1)
    for old, new in zip(tile.axes, moved.axes, strict=True):
        ratios = [next(b / a for a, b in zip(*rows, strict=True) if a) for rows in zip(old.G, new.G, strict=True)]
        scales = np.kron(scales, [float(ratio) for ratio in ratios])
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 6, 5, 7, 2, generator=generator, dtype=torch.float64)
    u = torch.randn(tile.positions, 2, 3, generator=generator, dtype=torch.float64)
    gr, gc = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((2, 2, 3), (len(u), 2)))
    gradients = []
    for own, c in ((tile, np.ones_like(scales)), (moved, scales)):
        for kept in (composed._tables, units_of.scale):  # by m, r and points alone, in which the two are one
            kept.cache_clear()
        layer = layer_of(own, 0).double()
        by = torch.from_numpy(c)
        with torch.no_grad():
            layer.weight.copy_(u * by[:, None, None])
        low = LowRankWinogradConv3d.of(layer, min(2, len(u)), units=units)
        with torch.no_grad():
            low.Gr.copy_(gr[: low.rank])
            low.Gc.copy_((gc * by.sign()[:, None])[:, : low.rank])  # norms do not see the sign of c
        composed.forward(x, low.weights(), low.geometry).square().mean().backward()
        assert low.Gr.grad is not None
        assert low.Gc.grad is not None
        gradients += [low.Gr.grad, low.Gc.grad * by.sign()[:, None]]
        if units in units_of.DIAGONAL:
            pads = layer.geometry.padding
            free = WinogradConv3d(2, 3, own.kernel_size, padding=pads, tile=own, units=units, dtype=torch.float64)
            free.adopt(layer.weight.detach(), free.mask)
            composed.forward(x, free.weights(), free.geometry).square().mean().backward()
            assert free.weight.grad is not None
            gradients.append(free.weight.grad * by.sign()[:, None, None])
    for kept in (composed._tables, units_of.scale):
        kept.cache_clear()
    for one, other in zip(gradients[: len(gradients) // 2], gradients[len(gradients) // 2 :], strict=True):
        close = 1e-12 * tile.amplification**2 * float(one.abs().max())
        torch.testing.assert_close(other, one, rtol=0, atol=close)


def rescaled(axis: Transform, seed: int) -> Transform:
    """Rows of G times s, rows of B over s; s a power of two of either sign, so that floats follow exactly."""
    rng = np.random.default_rng(seed)
    scales = [Fraction(2) ** int(rng.integers(-4, 5)) * int(rng.choice([-1, 1])) for _ in range(axis.t)]
    g = tuple(tuple(s * v for v in row) for s, row in zip(scales, axis.G, strict=True))
    b = tuple(tuple(v / s for v in row) for s, row in zip(scales, axis.B, strict=True))
    return replace(axis, G=g, B=b)


def score(name: str, tile: Tile, case: Case) -> torch.Tensor:
    """The score of a layer with spatial weights, after one gradient."""
    u = reference.filter_transform(case.w(), tile)
    du = reference.winograd_weight_grad(case.x(), case.y(), tile, case.geometry.padding)
    return SCORES[name](torch.from_numpy(u), torch.from_numpy(du), torch.from_numpy(importance(tile)))


@pytest.mark.parametrize("name", INVARIANT)
@given(cases(dense=True))
def test_score_does_not_depend_on_the_scaling_of_the_transforms(name: str, case: Case) -> None:
    """Bit for bit: scales are powers of two."""
    d, h, w = (rescaled(axis, case.seed + i) for i, axis in enumerate(case.geometry.tile.axes))
    other = Tile((d, h, w), case.geometry.tile.origin)
    assert torch.equal(score(name, other, case), score(name, case.geometry.tile, case))


@given(cases())
def test_scores_are_their_formulas(case: Case) -> None:
    f = importance(case.geometry.tile, case.geometry.kept)
    u, du = case.u(), case.u(stream=21)
    norms, slopes = (np.sqrt((a * a).sum(axis=(1, 2))) for a in (u, du))
    expected = {
        "product": np.abs(u * du).sum(axis=(1, 2)),
        "taylor": np.abs(np.einsum("kio,kio->k", u, du)),
        "weighted_magnitude": norms * f,
        "weighted_sum": norms * f / (norms * f).mean() + slopes / f / (slopes / f).mean(),
        "magnitude": norms,
    }
    assert set(expected) == set(SCORES)
    terms = 64 * 2.0**-52 * expected["product"].max()  # taylor's products, at most 16, may cancel
    for name, values in expected.items():
        actual = SCORES[name](*map(torch.from_numpy, (u, du, f))).flatten().numpy()
        np.testing.assert_allclose(actual, values, rtol=1e-13, atol=terms if name == "taylor" else 0)


def test_taylor_lets_terms_cancel_and_product_does_not() -> None:
    u, du = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]]), torch.tensor([[[2.0, -1.0]], [[-2.0, -1.0]]])
    assert SCORES["taylor"](u, du, torch.ones(2)).flatten().tolist() == [0, 4]
    assert SCORES["product"](u, du, torch.ones(2)).flatten().tolist() == [4, 4]


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


@dataclass(frozen=True)
class Choice:
    """What global selection is asked."""

    scores: dict[str, list[float]]
    candidates: dict[str, list[int]]
    costs: dict[str, float]
    budget: float
    floor: int

    def kept(self) -> dict[str, tuple[int, ...]]:
        return select_global(
            self.scores, self.candidates, self.costs, self.budget, dict.fromkeys(self.costs, self.floor)
        )

    def spent(self, columns: Iterable[tuple[str, int]]) -> float:
        return sum(self.costs[name] for name, _ in columns)


@st.composite
def choices(draw: st.DrawFn) -> Choice:
    """Two to four layers, some of whose columns are already gone; whole costs, so that sums are exact."""
    names, rng = draw(st.sampled_from(["ab", "abc", "dcba"])), np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores = {n: rng.integers(0, 10, 9).astype(float).tolist() for n in names}
    candidates = {n: sorted(rng.choice(9, rng.integers(1, 10), replace=False).tolist()) for n in names}
    costs = {n: float(rng.integers(1, 7)) for n in names}
    total = sum(costs[n] * len(candidates[n]) for n in names)
    return Choice(scores, candidates, costs, total * draw(st.integers(0, 16)) / 16, draw(st.integers(1, 3)))


@given(choices())
def test_global_selection_respects_budget_and_floor(choice: Choice) -> None:
    kept = choice.kept()
    least = {n: min(choice.floor, len(positions)) for n, positions in choice.candidates.items()}
    assert all(len(kept[n]) >= least[n] for n in choice.candidates)
    floors = sum(choice.costs[n] * count for n, count in least.items())
    assert choice.spent((n, p) for n in kept for p in kept[n]) <= max(choice.budget, floors)


@given(choices())
def test_global_selection_keeps_a_layers_best(choice: Choice) -> None:
    for name, kept in choice.kept().items():
        assert list(kept) == sorted(set(kept))
        assert set(kept) <= set(choice.candidates[name])
        values = choice.scores[name]
        dropped = set(choice.candidates[name]) - set(kept)
        assert all((-values[k], k) < (-values[d], d) for k in kept for d in dropped)


@given(choices())
def test_global_selection_keeps_what_fits_beside_all_that_ranks_above(choice: Choice) -> None:
    """Above the floor, a column is kept exactly when floor, kept columns of a better score per cost and it fit."""
    kept = {(n, p) for n, positions in choice.kept().items() for p in positions}
    floor: set[tuple[str, int]] = set()
    for n, positions in choice.candidates.items():
        floor |= {(n, p) for p in sorted(positions, key=lambda p: (-choice.scores[n][p], p))[: choice.floor]}

    def rank(column: tuple[str, int]) -> tuple[float, str, int]:
        return -choice.scores[column[0]][column[1]] / choice.costs[column[0]], *column

    assert floor <= kept
    for column in {(n, p) for n, positions in choice.candidates.items() for p in positions} - floor:
        above = floor | {other for other in kept if rank(other) < rank(column)}
        assert (column in kept) == (choice.spent(above) + choice.costs[column[0]] <= choice.budget)


def test_global_selection_ranks_by_score_per_cost() -> None:
    """By score alone the second dear column would win; per cost the cheap one does, and the dear one no longer fits."""
    scores, candidates = {"dear": [9.0, 8.0], "cheap": [4.0, 3.0]}, {"dear": [0, 1], "cheap": [0, 1]}
    kept = select_global(scores, candidates, {"dear": 4.0, "cheap": 1.0}, 9.0, {"dear": 1, "cheap": 1})
    assert kept == {"dear": (0,), "cheap": (0, 1)}
