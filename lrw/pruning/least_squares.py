"""What the columns that stay become: weights whose outputs come nearest to the ones that were wanted.

min over u of |y - phi u|^2 + ridge |u - start|_E^2, phi [voxels, K Cin] the features of the kept columns, E their
energy (the diagonal of N = phi^T phi), so that no column's scale counts. N is formed where it is small; beyond that
conjugate gradients go over the features themselves.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lrw.pruning.tiles import Tiles

RIDGE = 3e-2  # of each feature's energy
LEAST = 1e-5  # the least there is: N is added up in float32, and has to stay positive
FORMED = 4096  # features up to which N is formed: 128 MiB
STEPS = 40  # of conjugate gradients at most
CLOSE = 1e-2  # residual over the first one, at which they stop
_LEAST = 1e-3  # ridge of what conjugate gradients are preconditioned with


class Fit(NamedTuple):
    """u [K, Cin, Cout], and the squared error over all voxels before and after."""

    u: Tensor
    before: float
    after: float


def fit(tiles: Tiles, wanted: Tensor, start: Tensor, *, mask: Tensor | None = None, ridge: float = RIDGE,
        formed: int = FORMED) -> Fit:  # fmt: skip
    """The weights nearest to `wanted` [m^3, tiles, Cout], from `start` [K, Cin, Cout], for `tiles` of K positions.

    mask: bool [K, Cin, 1]; where it is False weights stay as they are. formed: up to how many features N is formed. The
    error after is never above the one before, as the penalty starts at zero.
    """
    ridge = max(ridge, LEAST)
    left = wanted - tiles.outputs(start)
    before = squared(left)
    energy = torch.where(tiles.energy > 0, tiles.energy, 1.0)[:, :, None]  # what is never there stays as it is
    right = tiles.adjoint(left)
    if energy.numel() <= formed and mask is None:
        step = _solved(tiles.features(), right, ridge * energy)
    else:
        step = _descended(tiles, right, ridge, (ridge * energy).to(right), mask)
    return Fit(start + step, before, squared(left.sub_(tiles.outputs(step))))


def _solved(n: Tensor, right: Tensor, penalty: Tensor) -> Tensor:
    """(N + penalty)^-1 right, by a Cholesky factor of it in units in which its diagonal is one."""
    n.diagonal().add_(penalty.flatten())
    scale = n.diagonal().rsqrt()
    factor = torch.linalg.cholesky(n.mul_(scale).mul_(scale[:, None]))
    solved = torch.cholesky_solve(right.flatten(0, 1).double() * scale[:, None], factor) * scale[:, None]
    return solved.view(right.shape).to(right)


def _descended(tiles: Tiles, right: Tensor, ridge: float, penalty: Tensor, mask: Tensor | None) -> Tensor:
    """The same by conjugate gradients, for all output channels at once, each with steps of its own."""
    allowed = None if mask is None else mask.to(right)

    def inside(u: Tensor) -> Tensor:
        return u if allowed is None else u.mul_(allowed)

    precondition = _preconditioner(tiles, max(ridge, _LEAST))
    x, r = torch.zeros_like(right), inside(right)
    z = inside(precondition(r))
    p, rz, first = z, _dots(r, z), _dots(r, r)
    for _ in range(STEPS):
        q = inside(tiles.adjoint(tiles.outputs(p)).addcmul_(penalty, p))
        step = _ratio(rz, _dots(p, q))
        x.addcmul_(step, p)
        r.addcmul_(step, q, value=-1)
        if bool((_dots(r, r) <= CLOSE**2 * first).all()):
            break
        z = inside(precondition(r))
        before, rz = rz, _dots(r, z)
        p = z.addcmul_(_ratio(rz, before), p)
    return x


def _preconditioner(tiles: Tiles, ridge: float) -> Callable[[Tensor], Tensor]:
    """Nearly N^-1: of G (x) C, as if positions and channels had nothing to do with each other."""
    c = tiles.channels()
    c = c / c.diagonal().mean().clamp_min(torch.finfo(c.dtype).tiny)
    gi, ci = (torch.linalg.inv(m + ridge * torch.diag(_positive(m.diagonal()))) for m in (tiles.gram(), c))

    def apply(r: Tensor) -> Tensor:
        return torch.matmul(ci.to(r), torch.tensordot(gi.to(r), r, dims=1))

    return apply


def _positive(diagonal: Tensor) -> Tensor:
    return torch.where(diagonal > 0, diagonal, 1.0)


def _dots(a: Tensor, b: Tensor) -> Tensor:
    """[1, 1, Cout]: a product for each output channel."""
    return (a * b).sum((0, 1), keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is: that output channel is done."""
    return torch.where(b > 0, a / b, 0.0)


def squared(y: Tensor) -> float:
    """The sum of squares, added up in float64."""
    return float(torch.linalg.vector_norm(y, dtype=torch.float64)) ** 2
