"""In what the rows of trained weights are counted, so that one learning rate suits all positions.

A weight of a column moves the outputs by its importance F_p, which differs by 24 times at F(4,3)^3. Counted in units
of 1 / F_p, or by a Cholesky factor of the outputs' Gram matrix, a step moves them equally wherever it is taken, and
what is trained does not depend on how factors are split between G and B. The units are ours.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lrw_kernels.winograd import Tile, importance, output_gram

UNITS = ("none", "importance", "gram")
DIAGONAL = UNITS[:2]  # those in which a row is counted by itself


def check(units: object, accepted: tuple[str, ...] = UNITS) -> None:
    """Raises ValueError for other units than these."""
    if units not in accepted:
        raise ValueError(f"units: {units!r}; accepted are {', '.join(accepted)}")


@lru_cache(maxsize=64)
def scale(tile: Tile, units: str) -> Tensor | None:
    """What rows in these units are multiplied with from the left to be rows of U, float64 [T, 1] or [T, T].

    In these units weights are as large as the taps they were made of, on average: scaled as rows of G are where they
    are.
    """
    if units == "none":
        return None
    if units == "importance":
        own = torch.from_numpy(1 / importance(tile))[:, None]
    else:
        factor = torch.linalg.cholesky(torch.from_numpy(output_gram(tile)))
        own = torch.linalg.inv(factor).T  # own own^T = H^-1
    d, h, w = (np.linalg.norm(axis.array("G"), axis=1) for axis in tile.axes)
    return own * float((np.kron(np.kron(d, h), w) * importance(tile)).mean())


def counted(rows: Tensor, own: Tensor | None) -> Tensor:
    """Rows [T, ...] of U in units of the scale `own`."""
    if own is None:
        return rows
    own = own.to(rows.device, torch.float64)
    flat = rows.flatten(1).double()
    solved = flat / own if own.shape[1] == 1 else torch.linalg.solve(own, flat)
    return solved.view_as(rows).to(rows)
