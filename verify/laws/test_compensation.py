"""Laws of pruning by elimination and least squares.

- what tiles say a layer gives is what the layer gives, at ragged edges, in any tile, with any origin
- features and energies are what their definition says; sums over them are adjoint
- elimination is the greedy choice, each step by least squares; how positions are scaled changes nothing
- a fit is numpy's least squares; conjugate gradients come to the same weights
- fitting never makes the error on what it looked at larger than the cut left it
- dropping what is zero already costs and changes nothing
- a plan keeps to its budget and is the best of the choices on convex hulls at the cost that it has
"""

from collections.abc import Sequence
from itertools import product as combinations
from math import prod

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lrw.nn import WinogradConv3d
from lrw.pruning import COLUMN, Granularity
from lrw.pruning.compensation import compensated, eliminated, refitted
from lrw.pruning.elimination import RIDGE, eliminate, made_up, products
from lrw.pruning.least_squares import fit
from lrw.pruning.plan import Option, Unreachable, cheapest
from lrw.pruning.tiles import Patches, Tiles, outputs_at
from lrw_kernels.winograd import Tile
from verify.laws.test_columns import rescaled
from verify.strategies import any_tile

SEEDS = st.integers(0, 2**31)
TILES = [(2, 3), ((2, 4, 3), 3), (2, (1, 3, 3)), (2, 5), (4, 3)]


def layer_of(tile: Tile, seed: int = 0, cin: int = 2, cout: int = 3) -> WinogradConv3d:
    torch.manual_seed(seed)
    padding = tuple(r // 2 for r in tile.kernel_size)
    return WinogradConv3d(cin, cout, tile.kernel_size, padding=padding, tile=tile, backend="torch")


def seen(layer: WinogradConv3d, x: Tensor, share: float = 1.0) -> tuple[Tiles, Tensor]:
    """Tiles of `layer` on x, and what it gives there."""
    geometry = layer.geometry
    with torch.no_grad():
        y = layer(x)
    tiles = len(x) * prod(geometry.tile.grid(y.shape[2:]))
    chosen = torch.randperm(tiles, generator=torch.Generator().manual_seed(3))[: max(1, round(share * tiles))]
    return Tiles.of([Patches.of(x, geometry, chosen)], geometry.tile), outputs_at(y, layer.bias, geometry.tile, chosen)


def an_input(seed: int, cin: int = 2, size: tuple[int, int, int] = (6, 5, 7)) -> Tensor:
    return torch.randn(2, cin, *size, generator=torch.Generator().manual_seed(seed)).relu()


@given(any_tile(), SEEDS)
def test_tiles_say_what_layers_give(tile: Tile, seed: int) -> None:
    layer = layer_of(tile, seed)
    tiles, wanted = seen(layer, an_input(seed), 0.7)
    y = tiles.outputs(layer.weight.detach())
    assert float((y - wanted).abs().max()) <= 1e-6 * tile.amplification * float(wanted.abs().max())
    assert tiles.voxels == int((wanted != 0).any(2).sum()) or bool((wanted == 0).all(2).any())


@given(any_tile(), SEEDS)
def test_features_are_as_defined(tile: Tile, seed: int) -> None:
    layer = layer_of(tile, seed)
    tiles, wanted = seen(layer, an_input(seed), 0.4)
    phi = torch.einsum("po,pnc,no->nopc", tiles.table, tiles.v.double(), tiles.inside[tiles.shape].double())
    t, cin = tile.positions, 2
    flat = phi.flatten(0, 1).flatten(1)
    close = {"rtol": 1e-4, "atol": 1e-5 * float((flat**2).sum(0).max())}
    torch.testing.assert_close(tiles.energy.flatten(), (flat**2).sum(0), **close)
    torch.testing.assert_close(tiles.gram(), torch.einsum("nopc,noqc->pq", phi, phi) / cin, **close)
    if t * cin <= 600:
        torch.testing.assert_close(tiles.features(), flat.T @ flat, **close)
    y, u = torch.randn_like(wanted), torch.randn(t, cin, 3)
    y *= tiles.inside.T[:, tiles.shape, None]
    ahead, back = (tiles.outputs(u).double() * y).sum(), (tiles.adjoint(y).double() * u).sum()
    scale = float(torch.linalg.vector_norm(tiles.outputs(u)) * torch.linalg.vector_norm(y))
    assert abs(float(ahead - back)) <= 1e-5 * scale


def random_gram(seed: int, t: int, rows: int = 40) -> tuple[Tensor, Tensor]:
    """(G [T, T] of random features, weights [T, 3])."""
    generator = torch.Generator().manual_seed(seed)
    phi = torch.randn(rows, t, generator=generator, dtype=torch.float64)
    return phi.T @ phi, torch.randn(t, 3, generator=generator, dtype=torch.float64)


@given(SEEDS)
def test_elimination_is_greedy_least_squares(seed: int) -> None:
    gram, u = random_gram(seed, 8)
    root = torch.linalg.cholesky(gram + RIDGE * torch.diag(gram.diagonal())).T  # phi, with the ridge in it
    found = eliminate(gram, products(u))
    there, total, wanted = list(range(8)), 0.0, root @ u

    def error(kept: list[int]) -> float:
        best = torch.linalg.lstsq(root[:, kept], wanted).solution
        return float((root[:, kept] @ best - wanted).square().sum())

    for p, cost in zip(found.order, found.costs.tolist(), strict=True):
        errors = {q: error([k for k in there if k != q]) for q in there}
        assert errors[p] <= min(errors.values()) * (1 + 1e-9)
        assert total + cost == pytest.approx(errors[p], rel=1e-6)
        there.remove(p)
        total += cost
    best = torch.linalg.lstsq(root[:, there], wanted).solution
    torch.testing.assert_close(made_up(gram, u, there), best, rtol=1e-6, atol=1e-9)


@given(any_tile().filter(lambda tile: tile.positions <= 216), SEEDS)  # each is eliminated twice
def test_scaling_positions_changes_no_choice(tile: Tile, seed: int) -> None:
    layer = layer_of(tile, seed)
    tiles, wanted = seen(layer, an_input(seed))
    scales = torch.exp2(torch.randint(-3, 4, (tile.positions,), generator=torch.Generator().manual_seed(seed)).float())
    other = Tiles(tiles.v / scales[:, None, None], tiles.shape, tiles.inside, tiles.table)
    u = layer.weight.detach()
    one = compensated(tiles, wanted, u, 0.5)
    two = compensated(other, wanted, u * scales[:, None, None], 0.5)
    if torch.equal(one.mask, two.mask):  # of equals rounding may take the other
        assert two.errors.fitted == pytest.approx(one.errors.fitted, rel=1e-3, abs=1e-5)
    assert two.errors.predicted == pytest.approx(one.errors.predicted, rel=1e-6, abs=1e-8)


def test_moving_factors_between_g_and_b_changes_no_choice() -> None:
    tile = Tile.of(2, 3)
    moved = Tile(tuple(rescaled(axis, 5) for axis in tile.axes))  # type: ignore[arg-type]
    taps = torch.randn(27, 2, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masks = []
    for own in (tile, moved):
        d, h, w = (axis.array("G") for axis in own.axes)
        layer = layer_of(own)
        with torch.no_grad():
            layer.weight.copy_(torch.tensordot(torch.from_numpy(np.kron(np.kron(d, h), w)), taps, dims=1))
        masks.append(eliminated(seen(layer, an_input(1))[0], layer.weight.detach(), 0.75)[0])
    assert torch.equal(*masks)


@pytest.mark.parametrize("formed", [10**6, 0])
@pytest.mark.parametrize(("outputs", "kernel_size"), TILES)
def test_a_fit_is_numpys_least_squares(outputs: object, kernel_size: object, formed: int) -> None:
    tile = Tile.of(outputs, kernel_size)  # type: ignore[arg-type]
    layer = layer_of(tile, cin=2, cout=3)
    tiles, wanted = seen(layer, an_input(4, size=(9, 10, 11)))
    kept = list(range(0, tile.positions, 3))
    own, start, ridge = tiles.only(kept), layer.weight.detach()[kept], 0.1
    found = fit(own, wanted, start, ridge=ridge, formed=formed)
    phi = torch.einsum("po,pnc,no->onpc", own.table, own.v.double(), own.inside[own.shape].double()).flatten(2)
    phi, y = phi.flatten(0, 1).numpy(), wanted.flatten(0, 1).double().numpy()
    held = np.sqrt(ridge * (phi**2).sum(0))
    left = np.vstack([y - phi @ start.flatten(0, 1).double().numpy(), np.zeros((len(held), 3))])
    step = np.linalg.lstsq(np.vstack([phi, np.diag(held)]), left, rcond=None)[0]
    expected = start.flatten(0, 1).double().numpy() + step
    apart = np.linalg.norm(phi @ (found.u.flatten(0, 1).double().numpy() - expected))
    assert apart <= (2e-2 if formed == 0 else 1e-4) * np.linalg.norm(phi @ step)
    assert found.after <= found.before


@pytest.mark.parametrize("granularity", [COLUMN, Granularity(None, 2), Granularity(2, None), Granularity(3, 4)])
@pytest.mark.parametrize(("outputs", "kernel_size"), TILES)
@pytest.mark.parametrize("share", [1.0, 0.05])
def test_fitting_never_makes_it_worse(
    outputs: object, kernel_size: object, granularity: Granularity, share: float
) -> None:
    tile = Tile.of(outputs, kernel_size)  # type: ignore[arg-type]
    layer = layer_of(tile, cin=5, cout=6)
    tiles, wanted = seen(layer, an_input(2, 5), share)
    u = layer.weight.detach()
    found = compensated(tiles, wanted, u, 0.6, granularity)
    assert found.errors.fitted <= found.errors.cut * (1 + 1e-6)
    assert float(found.mask.double().expand_as(u).mean()) == pytest.approx(0.4, abs=0.5 / tile.positions + 1e-9)
    assert bool((found.u[~found.mask.expand_as(u)] == 0).all())
    again = refitted(tiles, wanted, u, found.mask)
    assert torch.equal(again.u, found.u)
    squared = float((wanted - tiles.outputs(found.u)).double().square().sum() / wanted.double().square().sum())
    assert found.errors.fitted**2 == pytest.approx(squared, rel=1e-3, abs=1e-9)


def test_dropping_what_is_zero_changes_nothing() -> None:
    layer = layer_of(Tile.of(2, 3), cin=3, cout=4)
    gone = [3, 17, 40, 41, 63]
    with torch.no_grad():
        layer.weight[gone] = 0
    tiles, wanted = seen(layer, an_input(5, 3))
    u = layer.weight.detach()
    found = compensated(tiles, wanted, u, len(gone) / 64)
    assert found.mask.flatten().logical_not().nonzero().flatten().tolist() == gone
    assert found.errors.predicted <= 1e-6
    torch.testing.assert_close(found.u, u, rtol=0, atol=1e-5)


def test_one_column_stays_at_least() -> None:
    layer = layer_of(Tile.of(2, 3))
    tiles, wanted = seen(layer, an_input(5))
    assert int(compensated(tiles, wanted, layer.weight.detach(), 0.9999).mask.sum()) == 1


def test_what_is_never_there_keeps_its_weights() -> None:
    layer = layer_of(Tile.of(2, 3), cin=3)
    x = an_input(6, 3)
    x[:, 1] = 0
    tiles, wanted = seen(layer, x)
    found = compensated(tiles, wanted, layer.weight.detach(), 0.5)
    assert bool(torch.isfinite(found.u).all())
    nothing, zeros = seen(layer, torch.zeros_like(x))
    assert bool(torch.isfinite(compensated(nothing, zeros, layer.weight.detach(), 0.5).u).all())


CURVES = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=6), min_size=1, max_size=4
)


@given(CURVES, st.integers(1, 200))
def test_plans_keep_to_their_budget(curves: list[list[tuple[int, int]]], budget: int) -> None:
    tile = Tile.of(2, 3)
    options = {
        str(i): [Option(tile, 1, float(error), float(cost)) for error, cost in own] for i, own in enumerate(curves)
    }
    least = sum(min(o.cost for o in own) for own in options.values())
    if least > budget:
        with pytest.raises(Unreachable):
            cheapest(options, budget)
        return
    found = cheapest(options, budget)

    def total(choice: Sequence[Option], what: str) -> float:
        return sum(getattr(o, what) for o in choice)

    spent, error = (total(list(found.values()), what) for what in ("cost", "error"))
    assert spent <= budget
    assert all(found[name] in own for name, own in options.items())
    others = [c for c in combinations(*options.values()) if total(c, "cost") <= spent]
    assert error <= min(total(c, "error") for c in others)  # nothing as cheap is better


def test_plans_spend_where_an_error_is_cheapest() -> None:
    tile = Tile.of(2, 3)
    steep = [Option(tile, k, (4 - k) * 10.0, float(k)) for k in range(1, 5)]
    flat = [Option(tile, k, (4 - k) * 1.0, float(k)) for k in range(1, 5)]
    found = cheapest({"steep": steep, "flat": flat}, 5.0)
    assert (found["steep"].kept, found["flat"].kept) == (4, 1)
